"""The event log → the online store: what was told and does not count yet."""

from datetime import UTC, datetime

from jobs.landing import event_log
from jobs.opened import opened
from jobs.report import Report
from jobs.services import ensure
from recsys.events import fold_pending
from recsys.features import LiveStates
from recsys.settings import Settings


def run(settings: Settings, report: Report) -> None:
    """Fold every event of the log that is not in the states online yet; each counts once, however often this runs.

    Args:
        settings: where things are.
        report: events in the log, and how many of them were folded now.

    Raises:
        NotReady: the online store holds no features; `recsys materialize` fills it, and folds.
        DataError: the log is damaged, or was exchanged.
        EventLogUnavailable, FeatureStoreUnavailable: running it again completes it.
    """
    ensure(settings)
    with opened(settings) as (lake, store):
        log, (_, end) = event_log(settings, lake), lake.horizon()
        report["events"] = log.refresh()
        with report.stage("fold"), report.progress() as bar:
            task = bar.add_task("events", total=None)

            def show(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            report["folded"] = fold_pending(log, LiveStates(store), end, datetime.now(UTC), progress=show)
