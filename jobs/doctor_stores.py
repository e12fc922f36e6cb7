"""What `recsys doctor` looks at of the stores: Redis and what is in it, Feast's registry, the event log.

It changes nothing. Each check imports what it needs by itself, see `recsys.health`. No lock of the event log is taken.
"""

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from recsys.address import Address
from recsys.health import Verdict
from recsys.settings import Settings

if TYPE_CHECKING:
    from recsys.features import FeatureStore, Mark

_READ_S: Final = 1.0
_FREE: Final = "RECSYS_REDIS_URL=redis://127.0.0.1:PORT/0 with a port that is free, then recsys up"


def online_store(settings: Settings) -> Verdict:
    """Redis: who listens, and whether it keeps what it is given."""
    from recsys import services

    if Address.parse(settings.redis_url).cluster:
        from jobs.doctor_cluster import cluster

        return cluster(settings)
    url, parts = settings.redis_url, urlsplit(settings.redis_url)
    seen, where = services.look(url), f"{parts.hostname}:{parts.port or 6379}"
    pid = settings.redis / "server.pid"
    mend = {
        "closed": "recsys up",
        "silent": f"kill -CONT {pid.read_text('ascii')}"
        if pid.exists()
        else f"resume or restart the server at {where}",
        "locked": "RECSYS_REDIS_URL=redis://:PASSWORD@HOST:PORT/0, with the server's password",
        "loading": "wait: it reads its data",
        "stranger": _FREE,
    }
    if seen.state == "closed" and not (settings.features / "made.json").exists():
        return Verdict("not applicable", f"nothing listens at {where}, and there are no features yet")
    if seen.state == "loading":
        return Verdict("warning", f"{where}: {seen.said}", mend["loading"])
    if seen.state != "answers":
        return Verdict("error", f"{where}: {SAID[seen.state]} ({seen.said})", mend[seen.state])
    named = "redis_url" in settings.model_fields_set
    if not named and services.running(url, settings.redis) is None:
        return Verdict("error", f"{where} is another server's (got process {seen.about['process_id']})", _FREE)
    return keeps(where, seen.about)


SAID: Final = {
    "closed": "nothing listens",
    "silent": "it is stopped, or cannot be reached",
    "locked": "it wants another password",
    "stranger": "it is no Redis server",
}


def keeps(where: str, about: dict[str, Any]) -> Verdict:
    """Whether a server that answers keeps what it is given."""
    from recsys.services import LISTPACK_BYTES

    policy, bound, used = about["maxmemory_policy"], int(about["maxmemory"] or 0), int(about["used_memory"])
    keep = "redis-cli CONFIG SET maxmemory-policy noeviction"
    if about["evicted_keys"]:
        gone = f"{where} has evicted {about['evicted_keys']:,} keys ({policy})"
        return Verdict("error", gone, f"{keep}; recsys verify --repair")
    if bound and policy != "noeviction":
        return Verdict("error", f"{where} evicts keys ({policy}) from {bound / 1e6:,.0f} MB on", keep)
    if bound and used > 0.9 * bound:
        full = f"{where}: {used / 1e6:,.0f} of {bound / 1e6:,.0f} MB are used"
        return Verdict("warning", full, "redis-cli CONFIG SET maxmemory 0, or more memory")
    if (packed := about.get("hash_max_listpack_value", LISTPACK_BYTES)) < LISTPACK_BYTES:
        said = f"{where}: hash-max-listpack-value is {packed}: keys take half as much memory again"
        return Verdict("warning", said, f"redis-cli CONFIG SET hash-max-listpack-value {LISTPACK_BYTES}")
    return Verdict("ok", f"{where} answers, {used / 1e6:,.0f} MB, keeps every key")


def registry(settings: Settings) -> Verdict:
    """Feast's registry: applied, and what the definitions and the live version say."""
    import json

    from jobs.doctor_serving import pointer
    from recsys.artifacts import MANIFEST, Artifact

    not_yet = Verdict("not applicable", "the feature views are not registered yet", "recsys materialize")
    if not _may_be_registered(settings):
        return not_yet
    store = _store(settings)
    there, wanted = store.schema(), store.defined_schema()
    if not there:
        return not_yet
    if differ := sorted(name for name in {*there, *wanted} if there.get(name) != wanted.get(name)):
        said = f"the registry differs from {settings.feature_repo.name}/definitions.py in {', '.join(differ)}"
        return Verdict("error", said, "recsys materialize, then recsys train")
    live, _ = pointer(settings)
    if live is not None and (manifest := settings.artifacts / live / MANIFEST).exists():
        artifact = Artifact(manifest.parent, json.loads(manifest.read_text(encoding="utf-8")))
        artifact.require_features(there)  # says what to run
    return Verdict("ok", f"{len(there)} views, as the definitions and the live version have them")


def online_features(settings: Settings) -> Verdict:
    """Whether the online store was filled from the feature views that are there."""
    from recsys.refresh import Made

    mark, made = _mark(settings), Made.read(settings.features)
    if mark is None or made is None:
        return Verdict("not applicable", "there is nothing to compare", "see features and online store")
    if not mark.source:
        return Verdict("error", "the online store holds no features", "recsys materialize")
    if mark.source != made.source:
        return Verdict("error", "the online store was filled from other features than are there", "recsys materialize")
    return Verdict("ok", "filled from the features that are there")


def event_log(settings: Settings) -> Verdict:
    """Whether every event that was acknowledged counts online."""
    from recsys.dataset import read_source, world_of
    from recsys.events import last_position

    last = last_position(settings.events / world_of(read_source(settings.lake)))
    mark = _mark(settings)
    if not last or mark is None:
        said = f"{last:,} events; the online store cannot be asked" if last else "no event was told yet"
        return Verdict("not applicable", said)
    if mark.folded > last:
        said = f"the online store knows {mark.folded:,} events and the log has {last:,}: it was cut or exchanged"
        return Verdict("error", said, "restore data/events from a backup, or recsys materialize --full")
    if behind := last - mark.folded:
        return Verdict("warning", f"{behind:,} of {last:,} events do not count online yet", "recsys replay")
    return Verdict("ok", f"{last:,} events, all of them count")


def _store(settings: Settings) -> "FeatureStore":
    from recsys.features import FeatureStore

    return FeatureStore(**settings.feast, timeout_s=_READ_S, history=False)


def _may_be_registered(settings: Settings) -> bool:
    """Of a registry that is a database, only asking it can tell."""
    return settings.feast["yaml"] != "feature_store.yaml" or (settings.data_dir / "registry.db").exists()


def _mark(settings: Settings) -> "Mark | None":
    """What the online store was filled from; None where it cannot be asked."""
    from recsys.errors import FeatureStoreUnavailable
    from recsys.features import LiveStates

    if not _may_be_registered(settings):
        return None
    store = _store(settings)
    try:
        return LiveStates(store).mark()
    except FeatureStoreUnavailable:
        return None
    finally:
        store.close()
