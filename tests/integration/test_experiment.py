"""`recsys experiment` against figures worked by hand: what counts, what is pending, and what must never count."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from jobs import experiment
from jobs.report import Report
from recsys.dataset import world_of
from recsys.errors import NotReady
from recsys.events import Event, EventLog, landable
from recsys.impressions import Arm, Impression, Impressions, Kind
from recsys.lake import Lake
from recsys.schemas import INTERACTIONS
from recsys.settings import Settings

T = datetime(2024, 3, 25, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, _env_file=None)


def show(
    settings: Settings, version: str, arm: Arm, shown: Sequence[tuple[int, Sequence[int], datetime]],
    kind: Kind = "place", world: str | None = None,
) -> None:  # fmt: skip
    """(user, places, moment) each one answer."""
    folder = settings.impressions / (world or world_of({}))
    log = Impressions(folder, uuid4().hex, keep=timedelta(days=1), wall=lambda: datetime.now(UTC))
    for i, (user, places, at) in enumerate(shown):
        items = tuple((place, 0.5) for place in places)
        assert log.offer(Impression(f"{version}-{i}", at, kind, (user,), items, version, arm, 0))
    log.close()


def told(settings: Settings, did: Sequence[tuple[int, int, str, datetime]]) -> None:
    log = EventLog(settings.events / world_of({}))
    log.refresh()
    log.append(
        [
            Event.made(id=f"{log.last}-{i}", kind=kind, user_id=u, place_id=p, moment=at, dwell_s=None, now=at + HOUR)
            for i, (u, p, kind, at) in enumerate(did)
        ]
    )


def found(settings: Settings, **options: object) -> dict:
    report = Report("experiment", settings.reports, Console(file=StringIO(), width=200))
    experiment.run(settings, report, **({"until": T + 48 * HOUR} | options))
    return report.figures


def rates(figures: dict, version: str) -> tuple[float, float]:
    return tuple(figures["versions"][version][rate]["rate"] for rate in experiment.RATES)


def a_split(settings: Settings) -> None:
    """Version a: 8 shown, 3 clicked, 1 gone to. Version b: 4 shown, 1 clicked, 2 gone to."""
    show(settings, "a", "live", [(1, [10, 11, 12, 13], T), (2, [10, 11, 12, 13], T + HOUR)])
    show(settings, "b", "split", [(3, [10, 11], T), (4, [10, 11], T + 2 * HOUR)])
    told(
        settings,
        [
            (1, 10, "view", T + HOUR), (1, 10, "like", T + 2 * HOUR), (1, 11, "save", T + 24 * HOUR),
            (1, 11, "attend", T + 3 * HOUR), (2, 13, "share", T + 2 * HOUR), (2, 12, "view", T + 26 * HOUR),
            (3, 10, "attend", T + HOUR), (3, 10, "view", T + HOUR), (4, 11, "attend", T + 3 * HOUR),
            (3, 99, "view", T + HOUR), (4, 10, "like", T + 2 * HOUR), (9, 10, "view", T + HOUR),
        ],
    )  # fmt: skip


def test_rates_are_those_of_a_hand_calculation(settings: Settings):
    a_split(settings)
    figures = found(settings)
    assert rates(figures, "a") == (3 / 8, 1 / 8)
    assert rates(figures, "b") == (1 / 4, 2 / 4)
    assert {k: figures["versions"]["a"][k] for k in ("users", "shown", "clicked", "attended", "pending")} == {
        "users": 2, "shown": 8, "clicked": 3, "attended": 1, "pending": 0,
    }  # fmt: skip
    gap = figures["difference"]
    assert (gap["version"], gap["minus"], gap["same_days"], gap["users_of_both"]) == ("b", "a", True, 0)
    assert gap["click_through"]["rate"] == 1 / 4 - 3 / 8
    assert gap["attend_rate"]["rate"] == 2 / 4 - 1 / 8
    shorter = found(settings, window_hours=2.0)
    assert rates(shorter, "a") == (2 / 8, 0)


def test_what_happened_before_it_was_shown_or_after_the_window_changes_nothing(settings: Settings):
    a_split(settings)
    before = found(settings)
    told(
        settings,
        [
            (1, 12, "view", T - timedelta(microseconds=1)), (1, 13, "attend", T), (2, 10, "like", T + 0.5 * HOUR),
            (4, 10, "attend", T + 1.9 * HOUR), (2, 11, "attend", T + 25 * HOUR + timedelta(microseconds=1)),
            (3, 11, "attend", T + 47 * HOUR),
        ],
    )  # fmt: skip
    after = found(settings)
    assert after == before
    told(settings, [(3, 11, "attend", T + 23 * HOUR)])
    assert rates(found(settings), "b")[1] == 3 / 4, "and within it, it does"
    assert found(settings, until=T + 22 * HOUR)["versions"]["b"]["pending"] == 4, "not yet known then"


def test_what_is_shown_later_does_not_change_what_was_known_then(settings: Settings):
    a_split(settings)
    then = found(settings, until=T + 25 * HOUR)
    assert then["versions"]["a"]["pending"] == 0
    assert (then["versions"]["b"]["shown"], then["versions"]["b"]["pending"]) == (2, 2)
    assert then["versions"]["b"]["click_through"]["rate"] == 1 / 2
    show(settings, "b", "split", [(5, [10], T + 26 * HOUR)])
    assert found(settings, until=T + 25 * HOUR) == then


def test_shadows_outsiders_people_and_other_data_sets_take_no_part(settings: Settings):
    a_split(settings)
    before = found(settings)
    show(settings, "c", "shadow", [(1, [10], T)])
    show(settings, "c", "outside", [(1, [10], T)])
    show(settings, "c", "live", [(1, [10], T)], kind="person")
    show(settings, "c", "live", [(1, [10], T)], world="another")
    show(settings, "old", "live", [(1, [10], T - HOUR)])
    assert found(settings) == before, "old was shown before the split began"


def test_an_event_that_passed_the_gate_counts_once_and_other_interactions_count_too(settings: Settings):
    a_split(settings)
    before = found(settings)
    log = EventLog(settings.events / world_of({}))
    log.refresh()
    rows = landable(log, 0).select([f.name for f in INTERACTIONS.arrow]).cast(INTERACTIONS.arrow)
    settings.lake.mkdir()
    pq.write_table(rows, settings.lake / "interactions.parquet")
    assert found(settings) == before
    more = rows.slice(0, 1).to_pylist()[0] | {"user_id": 2, "place_id": 10, "timestamp": T + 5 * HOUR}
    pq.write_table(
        pa.concat_tables([rows, pa.Table.from_pylist([more], INTERACTIONS.arrow)]),
        settings.lake / "interactions.parquet",
    )
    assert rates(found(settings), "a") == (4 / 8, 1 / 8)


def test_intervals_are_over_users_and_hold_what_they_say(settings: Settings):
    """Of one version a fifth of what is shown is clicked, of the other two fifths; users have tastes of their own."""
    rng = np.random.default_rng(0)
    for arm, version, mean, users in (("live", "a", 0.2, range(400)), ("split", "b", 0.4, range(400, 700))):
        shown, did = [], []
        for user in users:
            taste = rng.beta(2 * mean, 2 * (1 - mean))
            shown.append((user, range(10), T))
            did += [(user, p, "view", T + HOUR) for p in range(10) if rng.random() < taste]
        show(settings, version, arm, shown)
        told(settings, did)
    figures = found(settings)
    for version, mean, n in (("a", 0.2, 400), ("b", 0.4, 300)):
        rate = figures["versions"][version]["click_through"]
        assert rate["low"] < mean < rate["high"]
        spread = np.sqrt(mean * (1 - mean) * (1 / 3 + 1 / 10 - 1 / 30) / n)  # of a beta-binomial share of ten
        assert rate["high"] - rate["low"] == pytest.approx(2 * 1.96 * spread, rel=0.15)
    gap = figures["difference"]["click_through"]
    assert 0 < gap["low"] < 0.2 < gap["high"]
    widths = [
        figures["versions"][v]["click_through"]["high"] - figures["versions"][v]["click_through"]["low"] for v in "ab"
    ]
    assert gap["high"] - gap["low"] == pytest.approx(np.hypot(*widths), rel=0.1)


def test_without_a_split_the_last_two_versions_are_set_side_by_side_and_said_to_be_of_other_days(settings: Settings):
    show(settings, "a", "live", [(1, [10], T)])
    show(settings, "b", "live", [(1, [10], T + HOUR)])
    gap = found(settings)["difference"]
    assert (gap["version"], gap["minus"], gap["same_days"], gap["users_of_both"]) == ("b", "a", False, 1)


def test_nothing_shown_says_what_to_do_and_sql_reads_the_view(settings: Settings):
    with pytest.raises(NotReady, match="recsys serve"):
        found(settings)
    show(settings, "a", "live", [(1, [10, 11], T)])
    with Lake(settings.data_dir) as lake:
        rows = lake.query("SELECT item_id, position, arm, score FROM impressions ORDER BY position").to_pylist()
        assert rows == [
            {"item_id": 10, "position": 1, "arm": "live", "score": 0.5},
            {"item_id": 11, "position": 2, "arm": "live", "score": 0.5},
        ]
        show(settings, "b", "live", [(1, [10], T)])
        assert lake.query("SELECT count(*) AS n FROM impressions").to_pylist() == [{"n": 3}]
    figures = found(settings, until=T + HOUR)
    assert figures["versions"]["a"]["pending"] == 2
    assert figures["versions"]["a"]["click_through"] is None
    assert found(settings)["versions"]["a"]["click_through"] == {"rate": 0.0, "low": 0.0, "high": 0.0}
