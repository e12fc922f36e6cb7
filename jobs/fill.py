"""Feature views → the online store: what is new where it can be continued, else everything; then the live events."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.landing import event_log
from jobs.report import Report
from recsys.aggregates import PAIR_TTL
from recsys.errors import DataError
from recsys.events import fold_pending
from recsys.features import FeatureStore, LiveStates, Mark, Wanted
from recsys.lake import Lake
from recsys.profiles import views
from recsys.refresh import Made, last_rows
from recsys.settings import Settings

_DAY = timedelta(days=1)
_CROWD = 3 * _DAY  # who attended where so lately may still be joined by somebody whose event is late
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_PAIRS = PAIR_TTL + _DAY  # how far back pairs go online; whatever else there is holds until its next row
_PROFILES = ("user_profile", "place_profile")
# The views that put a key online, by the kind of entity that the store counts; the others share the profiles' keys.
_KEYS = {
    "user": ("user_profile", "user_id"),
    "place": ("place_profile", "place_id"),
    "user_place": ("user_place", "user_id, place_id"),
    "user_user": ("user_user", "user_u, user_v"),
}


def bring_online(
    settings: Settings, report: Report, lake: Lake, store: FeatureStore, made: Made, *, refill: bool
) -> None:
    """Fill the online store from the views.

    Args:
        settings: where things are.
        report: keys online, and where time went.
        lake: for the views' rows and who was where.
        store: whose definitions are registered.
        made: what the views were made from.
        refill: write everything, whatever the store was filled from.

    Raises:
        DataError: keys are missing online after all was written.
        FeatureStoreUnavailable: the store went away; running it again completes it.
    """
    job = _Job(settings, report, lake, store, LiveStates(store), made, datetime.now(UTC))
    log = event_log(settings, lake)
    with log.folding():
        mark = job.live.mark()
        if mark.source == made.source and not refill and job.whole():
            report.console.print("the online store is filled from these data already: nothing to do")
        elif mark.source and mark.source == made.before and not refill:
            job.continue_()
            job.mark_filled()
        else:
            job.fill_all()
            job.mark_filled()
    with report.stage("fold live events"):
        report["events_folded"] = fold_pending(log, job.live, made.end, job.wall)


@dataclass(frozen=True)
class _Job:
    settings: Settings
    report: Report
    lake: Lake
    store: FeatureStore
    live: LiveStates
    made: Made
    wall: datetime

    def mark_filled(self) -> None:
        self.live.set_mark(Mark(self.made.source, self.made.landed))

    def whole(self) -> bool:
        """Whether nothing was lost; pairs come with live events and go with time, so of them any number will do."""
        keys, there = self.live.keys(), self._there()
        self.report["keys_online"] = keys
        return all(keys.get(kind, 0) >= n for kind, n in there.items() if kind != "user_place")

    def fill_all(self) -> None:
        # Other data under the same ids and times: Feast would keep the old values, since they are not older.
        with self.report.stage("clear the online store"):
            self.live.clear()
        for view in views(self.lake.source()):
            self._fill(view, self._reach(view))
        self._crowds(self.made.end - _CROWD)
        with self.report.stage("count keys"):
            self.report["keys_online"] = self._count()

    def continue_(self) -> None:
        made = self.made
        assert made.after is not None
        for view in views(self.lake.source()):
            self._fill(view, max(made.after, self._reach(view)))
        gone = self.lake.query(
            "SELECT user_id, place_id FROM user_place GROUP BY ALL "
            "HAVING max(event_timestamp) <= $edge AND max(event_timestamp) > $before ORDER BY ALL",
            {"edge": made.end - PAIR_TTL - _DAY, "before": made.after - PAIR_TTL - 2 * _DAY},
        )
        keys = self.store.rows("user_place").join_keys
        self.live.drop(Wanted("user_place", tuple(gone[name].to_numpy() for name in keys)))
        self.report["pairs_forgotten"] = len(gone)
        self._crowds(max(made.after, made.end - _CROWD))

    def _reach(self, view: str) -> datetime:
        return self.made.end - _PAIRS if view == "user_place" else _BEGINNING

    def _fill(self, view: str, after: datetime) -> None:
        with self.report.stage(f"materialize {view}"):
            if after >= self.made.end:
                return
            if view in _PROFILES:
                self.store.materialize(view, after, self.made.end)
                return
            path = self.settings.features / f"{view}.parquet"
            for rows in last_rows(path, self.store.rows(view).join_keys, after):
                self.live.fill(view, rows, seq=self.made.landed, end=self.made.end, wall=self.wall)
            self.store.mark_materialized(view, after, self.made.end)

    def _crowds(self, since: datetime) -> None:
        rows: list[dict[str, Any]] = self.lake.query(
            "SELECT DISTINCT place_id, (\"timestamp\"::DATE - DATE '1970-01-01')::INTEGER AS day, user_id "
            'FROM interactions WHERE attended AND "timestamp" >= $since AND "timestamp" < $end',
            {"since": since, "end": self.made.end},
        ).to_pylist()
        self.live.join_crowds([(row["place_id"], row["day"], row["user_id"], 0) for row in rows])

    def _count(self) -> dict[str, int]:
        """Keys online by kind, which must be those of the files."""
        there, keys = self._there(), self.live.keys()
        if keys != {kind: n for kind, n in there.items() if n}:
            raise DataError(f"online there should be {there} keys (got {keys}): run it again")
        return there

    def _there(self) -> dict[str, int]:
        """Keys by kind in the files, as far as they go online."""
        return {
            kind: self.lake.query(
                f"SELECT count(*) AS n FROM (SELECT DISTINCT {key} FROM {view} "
                "WHERE event_timestamp > $after AND event_timestamp <= $end)",
                {"after": self._reach(view), "end": self.made.end},
            )["n"][0].as_py()
            for kind, (view, key) in _KEYS.items()
        }
