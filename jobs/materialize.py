"""Behavioural features as of each day → parquet → Redis, through Feast."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from expectations import SIZES_SQL, VIEW_SUITES, Bounds
from expectations.gate import rejections
from jobs.command import midnight
from jobs.quality import judged, write_pages
from jobs.report import Report
from jobs.services import ensure
from recsys.errors import DataError, GateFailed
from recsys.features import FeatureStore
from recsys.lake import Lake, staging
from recsys.online import PAIR_TTL
from recsys.profiles import views
from recsys.quality import check, data_docs, worst
from recsys.settings import Settings

_DAY = timedelta(days=1)
# How far back a view's rows go online; profiles and ties hold until the next one, whenever they began.
_REACH = {"user_activity": 2 * _DAY, "place_activity": 2 * _DAY, "user_place": PAIR_TTL + _DAY}
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
# The views that put a key online, by the kind of entity that the store counts; activity shares the profiles' keys.
_KEYS = {
    "user": ("user_profile", "user_id"),
    "place": ("place_profile", "place_id"),
    "user_place": ("user_place", "user_id, place_id"),
    "user_user": ("user_user", "user_u, user_v"),
}


def run(settings: Settings, report: Report, *, until: datetime | None = None) -> None:
    """Compute every feature view, register the definitions and fill the online store; what is there is not redone.

    Args:
        settings: where things are.
        report: rows by view, keys online, and where time went.
        until: features as of this midnight, UTC; default: the end of the data.

    Raises:
        ConfigError: `until` is not a midnight.
        GateFailed: a view broke a rule; nothing was changed.
        DataError: keys are missing online after all was written.
    """
    with Lake(settings.data_dir, threads=settings.threads, memory_limit_gb=settings.memory_limit_gb) as lake:
        start, end = lake.horizon()
        if until is not None:
            end = midnight("--until", until, start, end)
        report["until"] = end.isoformat()
        ensure(settings)
        store = FeatureStore(settings.feature_repo, data_dir=settings.data_dir, redis_url=settings.redis_url)
        try:
            _fill(settings, report, lake, store, start, end)
        finally:
            store.close()


def _fill(settings: Settings, report: Report, lake: Lake, store: FeatureStore, start: datetime, end: datetime) -> None:
    queries = views(lake.source())
    paths = {view: settings.features / f"{view}.parquet" for view in queries}
    definitions = (settings.feature_repo / "definitions.py").read_text(encoding="utf-8")
    made_from = json.dumps([lake.fingerprint(), end.isoformat(), definitions, dict(queries)])
    source = hashlib.sha256(made_from.encode()).hexdigest()
    there = store.source() == source and all(path.exists() for path in paths.values())
    if not there:
        _compute(settings, report, lake, queries, start, end)
    with report.stage("feast apply"):
        report["registered"] = store.apply()
    reach = {view: end - _REACH[view] if view in _REACH else _BEGINNING for view in queries}
    wanted = {
        kind: lake.query(
            f"SELECT count(*) AS n FROM (SELECT DISTINCT {key} FROM {view} "
            "WHERE event_timestamp > $after AND event_timestamp <= $end)",
            {"after": reach[view], "end": end},
        )["n"][0].as_py()
        for kind, (view, key) in _KEYS.items()
    }
    report["rows"] = {view: lake.query(f"SELECT count(*) AS n FROM {view}")["n"][0].as_py() for view in queries}
    if there and store.keys() == wanted:
        report.console.print("features and online store are made from these data already: nothing to do")
    else:
        # Other data under the same ids and times: Feast would keep the old values, since they are not older.
        with report.stage("clear the online store"):
            store.clear()
        for view in queries:
            with report.stage(f"materialize {view}"):
                store.materialize(view, reach[view], end)
        with report.stage("count keys"):
            keys = store.keys()
        if keys != wanted:
            raise DataError(f"online there should be {wanted} keys (got {keys}): run it again")
        store.mark_source(source)
    report["keys_online"] = wanted


def _compute(
    settings: Settings, report: Report, lake: Lake, queries: Mapping[str, str], start: datetime, end: datetime
) -> None:
    """Compute every view aside and judge it; all take their places in one step, or none does."""
    taxonomy, sizes = lake.taxonomy(), lake.query(SIZES_SQL).to_pylist()[0]
    bounds = Bounds.of(lake.source(), sizes, taxonomy.widths)
    now = settings.now or datetime.now(UTC)
    tables, suites, docs = judged(settings, "tables"), {}, {}
    with staging(settings.data_dir, replaces=("features/*.parquet",)) as stage:
        made: dict[str, Path] = {}
        for view, query in queries.items():
            with report.stage(f"compute {view}"):
                params = {k: v for k, v in (("start", start), ("end", end)) if f"${k}" in query}
                lake.write(query, stage / "features" / f"{view}.parquet", params, files=made)
                made[view] = stage / "features" / f"{view}.parquet"
            with report.stage(f"judge {view}"):
                suite = VIEW_SUITES[view](bounds)
                verdict = check(lake.derive(suite.sql, {"landing": made[view]}), suite)
                suites[view] = verdict.figures()
                docs[view] = data_docs(verdict, view, now, "../index.html")
        bad = {view: rejections(suite) for view, suite in suites.items() if suite["severity"] == "critical"}
        broken = [
            f"{view}: {rule} does not hold of {n:,} rows" for view, rules in bad.items() for rule, n in rules.items()
        ]
        severity = worst(suite["severity"] for suite in suites.values())
        found = {"refused": "; ".join(broken) or None, "severity": severity, "suites": suites}
        if tables:
            write_pages(settings.reports / "quality", docs, tables=tables, views=found)
        if broken:
            raise GateFailed(f"{found['refused']}: features and online store stay as they were")
