"""The event log: nothing that was acknowledged is lost, nothing counts twice, whoever dies while writing."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recsys.dataset import world_of
from recsys.errors import DataError, EventLogUnavailable, InvalidField
from recsys.events import Event, EventLog, landable
from recsys.events import log as log_module
from recsys.events.reader import Reader
from recsys.schemas import INTERACTIONS, implicit_rating

NOW = datetime(2024, 3, 25, 12, tzinfo=UTC)


def event(id: object = "a", **changes: object) -> Event:
    said = {"kind": "view", "user_id": 1, "place_id": 2, "moment": NOW, "dwell_s": None, "now": NOW}
    return Event.made(id=str(id), **{**said, **changes})


def many(n: int, first: int = 0) -> list[Event]:
    return [event(i, user_id=i % 7, place_id=i % 11) for i in range(first, first + n)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "events" / "w"


def test_events_are_numbered_from_one_and_come_back_as_they_were(folder: Path):
    log = EventLog(folder)
    assert log.append(many(3)) == [True] * 3
    assert log.append(many(2, 3)) == [True] * 2
    for opened in (log, EventLog(folder)):
        assert opened.refresh() == 5
        found = list(opened.read())
        assert [e.seq for e in found] == [1, 2, 3, 4, 5]
        assert [replace(e, seq=0) for e in found] == many(5)
        assert [e.id for e in opened.read(3)] == ["3", "4"]
        assert list(opened.read(5)) == []
    assert [p.name for p in folder.glob("[!.]*")] == ["000000000001.jsonl"]
    fields = json.loads((folder / "000000000001.jsonl").read_text().splitlines()[0])
    assert set(fields) == set(Event.__slots__)


def test_an_empty_log_is_read_without_being_made(folder: Path):
    log = EventLog(folder)
    assert log.refresh() == 0
    assert list(log.read()) == []
    assert len(landable(log, 0)) == 0
    assert not folder.exists()


@pytest.mark.parametrize("id", ["a", 'quote " and \\', "line\nbreak", "ж 🎉", "\ud800", "}\n{", "x" * 200])
def test_any_id_is_kept_and_known_again(folder: Path, id: str):
    log = EventLog(folder)
    assert log.append([event(id), event("other")]) == [True, True]
    assert log.append([event(id)]) == [False]
    again = EventLog(folder)
    assert again.append([event(id), event("third")]) == [False, True]
    assert [e.id for e in again.read()] == [id, "other", "third"]


def test_an_id_counts_once_in_a_batch_between_batches_and_between_processes(folder: Path):
    ours, theirs = EventLog(folder), EventLog(folder)
    assert ours.append([event("a"), event("a"), event("b")]) == [True, False, True]
    assert theirs.append([event("b"), event("c")]) == [False, True]
    assert ours.append([event("c"), event("d")]) == [False, True]
    assert [(e.seq, e.id) for e in ours.read()] == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]


def test_ids_are_remembered_for_as_many_events_as_promised_in_bounded_memory(folder: Path):
    log = EventLog(folder, segment_bytes=2_000, remembered=40)
    for i in range(200):
        assert log.append([event(i)]) == [True]
    for opened in (log, EventLog(folder, segment_bytes=2_000, remembered=40)):
        opened.refresh()
        assert sum(len(ids) for ids in opened._ids) <= 70
        assert opened.append([event(i) for i in range(160, 200)]) == [False] * 40
    assert log.append([event(0)]) == [True], "long forgotten"


def test_a_log_of_several_files_is_read_from_any_position(folder: Path):
    log = EventLog(folder, segment_bytes=10_000)
    for first in range(0, 500, 20):
        log.append(many(20, first))
    assert len(list(folder.glob("*.jsonl"))) > 5
    ids = [str(i) for i in range(500)]
    reader = Reader(folder)
    for after in (0, 1, 19, 20, 233, 234, 498, 499, 500):
        assert [e.id for e in log.read(after)] == ids[after:]
        assert [e.id for e in reader.after(after, 500)] == ids[after:]
        assert [e.id for e in Reader(folder).after(after, min(after + 7, 500))] == ids[after : after + 7]


def test_a_position_in_a_large_file_is_found_by_search(folder: Path):
    log = EventLog(folder)
    log.append(many(5_000))
    assert (folder / "000000000001.jsonl").stat().st_size > 10 * 65_536
    for after in (0, 1, 399, 2_500, 4_998):
        assert next(Reader(folder).after(after, 5_000)).seq == after + 1
    with pytest.raises(DataError, match="ends early"):
        list(Reader(folder).after(4_999, 5_001))


@pytest.mark.parametrize("torn", [1, 20, -1])
def test_a_line_that_was_cut_off_goes_and_its_event_may_come_again(folder: Path, torn: int):
    log = EventLog(folder)
    log.append(many(3))
    path = folder / "000000000001.jsonl"
    whole = path.read_bytes()
    line = whole.splitlines(keepends=True)[0].replace(b'"seq":1,"id":"0"', b'"seq":4,"id":"3"')
    path.write_bytes(whole + line[:torn])
    again = EventLog(folder)
    assert again.refresh() == 3
    assert path.read_bytes() == whole
    path.write_bytes(whole + line[:torn])
    assert log.append(many(1, 3)) == [True], "also by a process that was there before"
    assert [e.id for e in log.read()] == ["0", "1", "2", "3"]
    assert again.append(many(1, 3)) == [False]


def test_zeros_that_a_power_cut_leaves_are_cut_off(folder: Path):
    log = EventLog(folder)
    log.append(many(3))
    with (folder / "000000000001.jsonl").open("ab") as file:
        file.write(bytes(5_000))
    assert EventLog(folder).append(many(1, 3)) == [True]


def test_damage_in_the_middle_is_an_error_and_nothing_is_cut(folder: Path):
    log = EventLog(folder, segment_bytes=1_000)
    for i in range(30):
        log.append(many(1, i))
    first = sorted(folder.glob("*.jsonl"))[0]
    whole = first.read_bytes()
    for damaged in (whole.replace(b'"seq":2', b'"seq":9'), whole.replace(b'"id":"1"', b"\0" * 8), whole[:-5]):
        first.write_bytes(damaged)
        with pytest.raises(DataError, match=r"damaged at byte|must be next"):
            EventLog(folder).refresh()
        with pytest.raises(DataError):
            list(Reader(folder).after(0, 30))
        assert first.read_bytes() == damaged
    first.write_bytes(whole)
    sorted(folder.glob("*.jsonl"))[2].unlink()
    with pytest.raises(DataError, match="must be next"):
        EventLog(folder).refresh()
    with pytest.raises(DataError, match="ends early"):
        list(Reader(folder).after(0, 30))
    first.unlink()
    with pytest.raises(DataError, match="event 1 is not in the log any more"):
        list(Reader(folder).after(0, 30))


def test_a_log_that_was_exchanged_is_read_anew(folder: Path):
    log = EventLog(folder)
    log.append(many(5))
    (folder / "000000000001.jsonl").unlink()
    assert log.refresh() == 0
    assert log.append(many(2)) == [True, True]
    assert log.last == 2


def test_a_full_disk_takes_nothing_and_what_is_there_stays(folder: Path, monkeypatch: pytest.MonkeyPatch):
    log = EventLog(folder)
    log.append(many(3))
    whole = (folder / "000000000001.jsonl").read_bytes()
    write = os.write

    def half(descriptor: int, data: bytes) -> int:
        if len(data) < 200:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:100])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        for _ in range(2):
            with pytest.raises(EventLogUnavailable, match="No space left"):
                log.append(many(2, 3))
    assert (folder / "000000000001.jsonl").read_bytes() == whole
    assert log.append(many(2, 3)) == [True, True]
    assert [e.seq for e in log.read()] == [1, 2, 3, 4, 5]


def test_a_flush_that_fails_takes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch):
    log = EventLog(folder)
    log.append(many(3))

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(log_module, "_sync", broken)
        patch.setattr(os, "ftruncate", lambda *_: broken(0))
        with pytest.raises(EventLogUnavailable, match="Input/output error"):
            log.append(many(2, 3))
    assert log.append(many(3, 3)) == [False, False, True], "it could not be taken back: it is there, and counts once"
    assert [e.id for e in log.read()] == ["0", "1", "2", "3", "4", "5"]


def test_every_batch_is_flushed_before_it_is_acknowledged(folder: Path, monkeypatch: pytest.MonkeyPatch):
    log, sizes = EventLog(folder), []
    monkeypatch.setattr(log_module, "_sync", lambda fd: sizes.append(os.fstat(fd).st_size))
    for i in range(3):
        log.append(many(10, 10 * i))
        assert len(sizes) == i + 1
        assert sizes[-1] == (folder / "000000000001.jsonl").stat().st_size
    log.append(many(10))
    assert len(sizes) == 3, "nothing new, nothing to flush"


def test_who_waits_too_long_for_the_lock_is_told(folder: Path):
    ours, theirs = EventLog(folder), EventLog(folder)
    with ours.appending(), pytest.raises(EventLogUnavailable, match="held by another process"):
        theirs.append(many(1), timeout_s=0.05)
    with ours.folding():
        assert theirs.append(many(1)) == [True], "who folds keeps nobody from appending"
        with pytest.raises(EventLogUnavailable), theirs.folding(0.05):
            pass


def test_events_of_a_pair_at_one_moment_are_told_apart_by_a_microsecond(folder: Path):
    log = EventLog(folder)
    log.append([event("a"), event("b"), event("other", place_id=3), event("c")])
    again = EventLog(folder)
    again.append([event("d")])
    at = [e.at_us - many(1)[0].at_us for e in again.read()]
    assert at == [0, 1, 0, 2, 3]
    assert again.latest_us == many(1)[0].at_us + 3


def test_the_row_is_what_ingest_would_have_made(folder: Path):
    log = EventLog(folder)
    local = datetime(2024, 3, 24, 23, 30, tzinfo=timezone(timedelta(hours=7)))  # a Sunday night there
    log.append(
        [
            event("v", moment=local),
            event("l", kind="like", dwell_s=10.1),
            event("s", kind="save"),
            event("h", kind="share"),
            event("t", kind="attend"),
        ]
    )
    table = landable(log, 0)
    assert table.schema.names == [*INTERACTIONS.columns, "seq", "id", "kind"]
    assert table.select(list(INTERACTIONS.columns)).schema == INTERACTIONS.arrow
    view, like, save, share, attend = table.to_pylist()
    assert view["timestamp"] == local
    assert (view["time_of_day_bucket"], view["day_of_week_bucket"]) == (2, 1)
    assert (like["time_of_day_bucket"], like["day_of_week_bucket"]) == (1, 0)
    assert [r["dwell_time"] for r in (view, save, share, attend)] == [30, 30, 30, 150]
    assert like["dwell_time"] == np.float32(10.1)
    assert [(r["num_likes"], r["num_saves"], r["num_shares"], r["attended"]) for r in table.to_pylist()] == [
        (0, 0, 0, False), (1, 0, 0, False), (0, 1, 0, False), (0, 0, 1, False), (0, 0, 0, True),
    ]  # fmt: skip
    columns = [table[name].to_numpy() for name in ("dwell_time", "num_likes", "num_saves", "num_shares", "attended")]
    np.testing.assert_array_equal(table["implicit_rating"].to_numpy(), implicit_rating(*columns))
    rows = [e.interaction() for e in log.read()]
    assert [row.rating for row in rows] == table["implicit_rating"].to_pylist(), "the very float of the table"
    assert [row.seq for row in rows] == table["seq"].to_pylist() == [1, 2, 3, 4, 5]
    assert landable(log, 4).equals(table.slice(4))
    assert isinstance(landable(log, 5), pa.Table)


def test_a_moment_ahead_is_now_and_one_too_far_is_refused():
    assert event(moment=None).at_us == event(moment=NOW).at_us == event(moment=NOW + timedelta(minutes=5)).at_us
    ahead = (NOW + timedelta(minutes=3)).astimezone(timezone(timedelta(hours=-5)))
    assert (event(moment=ahead).at_us, event(moment=ahead).time_of_day) == (event().at_us, 0)
    for moment in (NOW + timedelta(minutes=5, microseconds=1), datetime.max.replace(tzinfo=UTC)):
        with pytest.raises(InvalidField, match=r"timestamp: must be at most 5 minutes after now.*\(got "):
            event(moment=moment)
    assert event(moment=NOW - timedelta(days=90)).at_us == event().at_us - 90 * 86_400_000_000
    for moment in (
        NOW - timedelta(days=90, microseconds=1),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    ):
        with pytest.raises(InvalidField, match=r"timestamp: must be at most 90 days ago \(got "):
            event(moment=moment)


def test_a_world_is_named_by_what_it_is_not_by_what_it_holds():
    city = {"synthetic": True, "preset": "city", "seed": 42, "users": 10, "places": 20, "end": "2024-03-25"}
    assert world_of(city) == world_of({**city, "end": "2024-03-26", "neighborhoods": 3})
    assert len({world_of(s) for s in (city, {**city, "seed": 43}, {**city, "users": 11}, {"name": "mine"}, {})}) == 5
    assert len(world_of({})) == 8
