"""Behavioural features as of each day → parquet → Redis, through Feast."""

import hashlib
import json
from datetime import UTC, datetime, timedelta

from jobs.report import Report
from jobs.services import ensure
from recsys.errors import ConfigError, DataError
from recsys.features import FeatureStore
from recsys.lake import Lake
from recsys.online import PAIR_TTL
from recsys.profiles import views
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
        DataError: keys are missing online after all was written.
    """
    with Lake(settings.data_dir, threads=settings.threads, memory_limit_gb=settings.memory_limit_gb) as lake:
        start, end = lake.horizon()
        if until is not None:
            end = until.astimezone(UTC) if until.tzinfo else until.replace(tzinfo=UTC)
            if end.time() != datetime.min.time():
                raise ConfigError(f"--until must be a midnight, UTC (got {until.isoformat()})")
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
    for view, query in queries.items():
        if not there:
            with report.stage(f"compute {view}"):
                params = {k: v for k, v in (("start", start), ("end", end)) if f"${k}" in query}
                lake.write(query, paths[view], params)
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
