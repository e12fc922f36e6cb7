"""What `recsys doctor` looks at of a Redis Cluster. It changes nothing."""

from typing import Final

from jobs.doctor_stores import SAID, keeps
from recsys.health import Verdict
from recsys.settings import Settings

_MANY: Final = "redis-cli --cluster call HOST:PORT CONFIG SET cluster-require-full-coverage no"


def cluster(settings: Settings) -> Verdict:
    """Every primary, one after the other: the worst that was found."""
    from recsys import services

    seen = services.look_at_cluster(settings.redis_url)
    away = [f"{where}: {SAID.get(one.state, one.said)}" for where, one in seen.items() if one.state != "answers"]
    if len(away) == len(seen):
        if not (settings.features / "made.json").exists():
            return Verdict("not applicable", f"no node of the cluster answers ({away[0]}), and there are no features")
        return Verdict("error", f"no node of the cluster answers ({'; '.join(away)})", "start it, or RECSYS_REDIS_URL")
    if away:
        return Verdict("error", f"{'; '.join(away)}: answers do without its keys", "restart it, or promote its replica")
    if strict := [where for where, one in seen.items() if one.about.get("full_coverage")]:
        said = f"{', '.join(strict)}: cluster-require-full-coverage is yes: while a node is away, the others are too"
        return Verdict(
            "warning", said, "redis-cli --cluster call HOST:PORT CONFIG SET cluster-require-full-coverage no"
        )
    verdicts = [keeps(where, one.about) for where, one in seen.items()]
    worst = max(verdicts, key=lambda verdict: ("ok", "warning", "error").index(verdict.state))
    if worst.state != "ok":
        return worst
    used = sum(int(one.about["used_memory"]) for one in seen.values())
    return Verdict("ok", f"a cluster of {', '.join(seen)}: all answer, {used / 1e6:,.0f} MB, keeps every key")
