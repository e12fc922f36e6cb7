"""Feature views continued from the day that changed are those made from the beginning, row for row."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from recsys.atomic import staging
from recsys.lake import Lake
from recsys.profiles import views
from recsys.refresh import Made, compute, continues, remember, superseded, wanted

DAY = timedelta(days=1)
DERIVED = {"derived": True}


def refresh(data: Path, queries: dict[str, str], *, full: bool = False) -> tuple[Made, str]:
    """As the job does it: compute aside, then take the places of what was there."""
    features = data / "features"
    with Lake(data) as lake:
        start, end = lake.horizon()
        made = wanted(lake, queries, "definitions", start, end, landed=0)
        continued, why = (None, "asked for") if full else continues(lake, features, made)
        made = continued or made
        old = [str(part.relative_to(data)) for part in superseded(features, made)]
        with staging(data, replaces=("features/*.parquet", "features/seen/*", *old)) as stage:
            paths: dict[str, list[Path]] = {}
            for view, query in queries.items():
                paths[view], _ = compute(lake, view, query, made, features, stage / "features", paths)
            remember(data / "lake", stage / "features")
            made.write(stage / "features")
    return made, why


def parts(data: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of writing of every part: the same of those that were not written again.

    But for profiles: those of people who came after the end of the events stand in the last part.
    """
    found = {str(path.relative_to(data)): path.stat() for path in (data / "features").glob("*[!e].parquet/*.parquet")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


def rows(data: Path, view: str) -> pa.Table:
    with Lake(data) as lake:
        return lake.query(f"SELECT * FROM {view} ORDER BY ALL")


def interactions(data: Path) -> pa.Table:
    return pq.read_table(data / "lake" / "interactions.parquet")


def lay(data: Path, table: pa.Table) -> None:
    (data / "lake" / "interactions.parquet").unlink()
    pq.write_table(table, data / "lake" / "interactions.parquet")


def before(table: pa.Table, moment: datetime) -> pa.Table:
    return table.filter(pc.less(table["timestamp"], pa.scalar(moment, table.schema.field("timestamp").type)))


@pytest.fixture
def data(world_dir: Path, tmp_path: Path) -> Path:
    shutil.copytree(world_dir, tmp_path / "data" / "lake")
    return tmp_path / "data"


@pytest.fixture(params=["given", "derived"])
def queries(request: pytest.FixtureRequest) -> dict[str, str]:
    return dict(views(DERIVED if request.param == "derived" else {}))


def same_as_all(data: Path, tmp_path: Path, queries: dict[str, str]) -> None:
    """Every view equals the one that is made from the beginning, in rows and in their order."""
    fresh = tmp_path / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(data / "lake", fresh / "lake")
    refresh(fresh, queries, full=True)
    for view in queries:
        mine, theirs = (pq.read_table(d / "features" / f"{view}.parquet") for d in (data, fresh))
        assert mine.cast(theirs.schema).equals(theirs), view


def test_a_day_more_makes_that_day_only(data: Path, tmp_path: Path, queries: dict[str, str]):
    whole = interactions(data)
    with Lake(data) as lake:
        _, end = lake.horizon()
    lay(data, before(whole, end - DAY))
    refresh(data, queries)
    lay(data, whole)
    made, why = refresh(data, queries)
    assert made.after == end - DAY, why
    same_as_all(data, tmp_path, queries)
    again, why = refresh(data, queries)
    assert again.after == end
    same_as_all(data, tmp_path, queries)


def test_a_row_that_arrives_two_days_late_is_found_and_mended(data: Path, tmp_path: Path, queries: dict[str, str]):
    whole = interactions(data)
    with Lake(data) as lake:
        _, end = lake.horizon()
    moments = whole["timestamp"].to_pylist()
    late = next(i for i, m in enumerate(moments) if end - 3 * DAY <= m < end - 2 * DAY)
    keep = np.ones(len(whole), dtype=bool)
    keep[late] = False
    lay(data, whole.filter(pa.array(keep)))
    refresh(data, queries)
    lay(data, whole)
    made, _ = refresh(data, queries)
    assert made.after == end - 3 * DAY
    same_as_all(data, tmp_path, queries)


def grow(data: Path, queries: dict[str, str], whole: pa.Table, days: int) -> datetime:
    """Made without the last days, then continued a day at a time; the end of the data."""
    lay(data, whole)
    with Lake(data) as lake:
        _, end = lake.horizon()
    for left in range(days, -1, -1):
        lay(data, before(whole, end - left * DAY))
        refresh(data, queries)
    return end


def test_parts_that_stay_are_not_written_again(data: Path, tmp_path: Path, queries: dict[str, str]):
    whole = interactions(data)
    end = grow(data, queries, before(whole, datetime(2024, 3, 1, tzinfo=UTC)), 2)
    names = [f"{end - n * DAY:%Y-%m-%d}.parquet" for n in (2, 1)]
    old = parts(data)
    assert {Path(name).name for name in old} == {min(Path(name).name for name in old), *names}
    lay(data, before(whole, end + DAY))
    made, why = refresh(data, queries)
    assert made.after == end, why
    new = parts(data)
    assert {name: new[name] for name in old} == old
    assert {Path(name).name for name in new.keys() - old.keys()} == {f"{end:%Y-%m-%d}.parquet"}
    same_as_all(data, tmp_path, queries)


def test_a_late_row_cuts_a_part_in_two_and_drops_those_after_it(data: Path, tmp_path: Path):
    queries = dict(views({}))
    whole = interactions(data)
    with Lake(data) as lake:
        _, end = lake.horizon()
    moments = whole["timestamp"].to_pylist()
    late = next(i for i, m in enumerate(moments) if end - 4 * DAY <= m < end - 3 * DAY)
    grow(data, queries, whole.filter(pa.array([i != late for i in range(len(whole))])), 2)
    lay(data, whole)
    made, _ = refresh(data, queries)
    assert made.after == end - 4 * DAY
    names = sorted({Path(name).name for name in parts(data)})
    assert len(names) == 2
    assert names[1] == f"{end - 4 * DAY:%Y-%m-%d}.parquet"
    same_as_all(data, tmp_path, queries)


def test_parts_that_became_too_many_are_one_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    queries = dict(views({}))
    monkeypatch.setattr("recsys.refresh._MANY_PARTS", 3)
    grow(data, queries, interactions(data), 3)
    assert {name: len(list((data / "features" / f"{name}.parquet").iterdir())) for name in queries} == dict.fromkeys(
        queries, 2
    )
    same_as_all(data, tmp_path, queries)


def test_views_of_one_file_each_as_they_once_were_are_made_again(data: Path, tmp_path: Path):
    queries = dict(views({}))
    refresh(data, queries)
    for view in queries:
        (part,) = (data / "features" / f"{view}.parquet").iterdir()
        part.rename(data / "features" / "aside")
        part.parent.rmdir()
        (data / "features" / "aside").rename(part.parent)
    found = json.loads((data / "features" / "made.json").read_text())
    (data / "features" / "made.json").write_text(json.dumps({**found, "queries": "of old"}))
    assert refresh(data, queries)[1] == "the definitions changed"
    same_as_all(data, tmp_path, queries)


@pytest.mark.parametrize("change", ["a row is gone", "a row is altered", "a place is renamed"])
def test_what_was_there_and_is_other_now_makes_all(data: Path, tmp_path: Path, change: str):
    queries = dict(views({}))
    refresh(data, queries)
    if change == "a place is renamed":
        path = data / "lake" / "places.parquet"
        table = pq.read_table(path)
        names = table["name"].to_pylist()
        names[3] = "Elsewhere"
        path.unlink()
        at = table.column_names.index("name")
        pq.write_table(table.set_column(at, table.schema.field("name"), pa.array(names)), path)
    else:
        table = interactions(data)
        if change == "a row is gone":
            table = table.slice(1)
        else:
            dwell = table["dwell_time"].to_numpy().copy()
            dwell[5] += 1
            at = table.column_names.index("dwell_time")
            table = table.set_column(at, table.schema.field("dwell_time"), pa.array(dwell))
        lay(data, table)
    made, why = refresh(data, queries)
    assert made.after is None
    assert "1 rows of" in why or "on the first day" in why
    same_as_all(data, tmp_path, queries)


def test_other_definitions_and_a_lost_note_make_all(data: Path):
    queries = dict(views({}))
    refresh(data, queries)
    other = {**queries, "user_user": queries["user_user"] + " "}
    assert refresh(data, other)[1] == "the definitions changed"
    (data / "features" / "made.json").write_text("{")
    assert refresh(data, other)[1] == "nothing was made before"
    (data / "features" / "seen" / "users.parquet").unlink()
    assert refresh(data, other)[1] == "there is no copy of users"


def test_rows_up_to_a_moment_never_change(data: Path, queries: dict[str, str]):
    """The principle that continuing rests on: whatever comes after t, rows stamped up to t are the same."""
    whole = interactions(data)
    with Lake(data) as lake:
        start, end = lake.horizon()
    refresh(data, queries)
    full = {view: rows(data, view) for view in queries}
    for days in (30, 45, 61):
        t = start + days * DAY
        lay(data, before(whole, t))
        shutil.rmtree(data / "features")
        refresh(data, queries)
        for view in queries:
            stamp = pa.scalar(min(t, end), pa.timestamp("us", "UTC"))
            mine = rows(data, view)
            mine = mine.filter(pc.less_equal(mine["event_timestamp"], stamp))
            theirs = full[view].filter(pc.less_equal(full[view]["event_timestamp"], stamp))
            assert mine.equals(theirs), (view, days)
