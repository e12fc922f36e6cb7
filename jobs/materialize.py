"""Behavioural features as of each day → parquet → Redis, through Feast."""

from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq

from jobs.report import Report
from jobs.services import ensure
from recsys.aggregates import VIEWS
from recsys.errors import DataError
from recsys.features import FeatureStore
from recsys.lake import Lake
from recsys.online import PAIR_TTL
from recsys.settings import Settings

_ACTIVITY_WINDOW = timedelta(days=2)  # ttl of the daily views: older rows would not be served anyway


def run(settings: Settings, report: Report, *, until: datetime | None = None) -> None:
    """Compute every feature view, register the definitions and fill the online store.

    Args:
        settings: where things are.
        report: rows by view, keys online, and where time went.
        until: features as of this midnight; default: the end of the data.
    """
    with Lake(settings.data_dir, threads=settings.threads, memory_limit_gb=settings.memory_limit_gb) as lake:
        start, end = lake.horizon()
        end = until.astimezone(UTC) if until else end
        rows = {}
        for view, query in VIEWS.items():
            with report.stage(f"compute {view}"):
                path = settings.features / f"{view}.parquet"
                rows[view] = lake.write(
                    query, path, {k: v for k, v in (("start", start), ("end", end)) if f"${k}" in query}
                )
        fingerprint = f"{lake.fingerprint()}@{end.isoformat()}"
    report.update(until=end.isoformat(), rows=rows)

    ensure(settings)
    store = FeatureStore(settings.feature_repo, data_dir=settings.data_dir, redis_url=settings.redis_url)
    with report.stage("feast apply"):
        report["registered"] = store.apply()
    if store.source() != fingerprint:
        # Other data under the same ids and times: Feast would keep the old values, since they are not older.
        with report.stage("clear the online store"):
            store.clear()
    for view in VIEWS:
        window = PAIR_TTL if view == "user_place" else _ACTIVITY_WINDOW if view.endswith("_activity") else end - start
        with report.stage(f"materialize {view}"):
            store.materialize(view, end - window - timedelta(days=1), end)
    store.mark_source(fingerprint)
    with report.stage("count keys"):
        keys = store.keys()
    store.close()
    report["keys_online"] = keys
    for view, kind in (("user_profile", "user"), ("place_profile", "place"), ("user_user", "user_user")):
        keys_wanted = {"user_id": ["user_id"], "place_id": ["place_id"]}.get(f"{kind}_id", ["user_u", "user_v"])
        table = pq.read_table(settings.features / f"{view}.parquet", columns=keys_wanted)
        wanted = table.group_by(keys_wanted).aggregate([]).num_rows
        if keys.get(kind, 0) < wanted:
            raise DataError(f"{view}: {wanted} keys should be online (got {keys.get(kind, 0)}): run it again")
