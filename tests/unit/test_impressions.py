"""What was shown is written whole, in bounds, by one thread; what cannot be kept is counted and holds up nobody."""

import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from recsys.impressions import SCHEMA, Impression, Impressions, to_table

NOW = datetime(2024, 3, 25, tzinfo=UTC)


def wall() -> datetime:
    return datetime.now(UTC)


def answer(i: int, items: int = 3, users: tuple[int | None, ...] = (7,)) -> Impression:
    shown = tuple((100 + at, 0.9 - 0.1 * at) for at in range(items))
    return Impression(f"r-{i}", NOW, "place", users, shown, "v1", "live", 2, ("user_vector",))


def opened(folder: Path, **options) -> Impressions:
    return Impressions(folder, options.pop("writer", "w"), **({"keep": timedelta(days=9), "wall": wall} | options))


def rows(folder: Path) -> list[dict]:
    return ds.dataset(sorted(folder.glob("[!.]*.parquet"))).to_table().to_pylist()


def wait_for(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_row_an_item_and_of_a_group_one_of_each_member():
    table = to_table([answer(0, 2, (4, None)), answer(1, 0)])
    assert table.schema == SCHEMA
    assert [(r["user_id"], r["item_id"], r["position"], round(r["score"], 6)) for r in table.to_pylist()] == [
        (4, 100, 1, 0.9), (4, 101, 2, 0.8), (None, 100, 1, 0.9), (None, 101, 2, 0.8),
    ]  # fmt: skip
    assert table.slice(0, 1).drop_columns(["user_id", "item_id", "position", "score"]).to_pylist() == [
        {
            "request_id": "r-0", "at": NOW, "kind": "place", "model_version": "v1", "arm": "live", "city_id": 2,
            "degraded": ["user_vector"],
        }
    ]  # fmt: skip


def test_closing_writes_what_waits_and_takes_no_more(tmp_path: Path):
    log = opened(tmp_path / "made")
    assert all(log.offer(answer(i)) for i in range(5))
    log.close()
    assert len(rows(tmp_path / "made")) == log.written == 15
    assert not log.offer(answer(6))
    assert log.dropped == 1


def test_a_file_is_whole_at_any_moment_and_a_full_one_is_followed_by_another(tmp_path: Path):
    log = opened(tmp_path, every_s=0.001, rows=30)
    for i in range(40):
        assert log.offer(answer(i))
        wait_for(lambda i=i: log.written == 3 * (i + 1))
        assert [r["request_id"] for r in rows(tmp_path)[::3]] == [f"r-{k}" for k in range(i + 1)]
    log.close()
    assert [p.name for p in sorted(tmp_path.iterdir())] == [f"w-{k:06d}.parquet" for k in range(4)]
    assert [pq.read_metadata(p).num_rows for p in sorted(tmp_path.iterdir())] == [30] * 4


def test_many_threads_and_two_writers_lose_nothing(tmp_path: Path):
    logs = [opened(tmp_path, writer=name, every_s=0.002) for name in "ab"]

    def work(k: int) -> None:
        for i in range(200):
            assert logs[k % 2].offer(answer(1_000 * k + i, 1))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for log in logs:
        log.close()
    assert {r["request_id"] for r in rows(tmp_path)} == {f"r-{1_000 * k + i}" for k in range(4) for i in range(200)}
    assert len(rows(tmp_path)) == 800


def test_more_than_may_wait_is_dropped_and_counted(tmp_path: Path):
    log = opened(tmp_path, every_s=60.0, most_waiting=10)
    assert [log.offer(answer(i)) for i in range(5)] == [True, True, True, False, False]
    assert log.offer(answer(9, 1)), "what still fits is taken"
    log.close()
    assert (log.dropped, log.written) == (2, 10)


def test_a_disk_that_refuses_is_said_once_and_tried_again(tmp_path: Path):
    folder, said = tmp_path / "log", []
    folder.write_text("in the way")
    log = opened(folder, every_s=0.005, on_trouble=said.append)
    for i in range(2):
        assert log.offer(answer(i))
        wait_for(lambda i=i: log.dropped == i + 1)
    folder.unlink()
    assert log.offer(answer(2))
    wait_for(lambda: log.written == 3)
    log.close()
    assert isinstance(said[0], OSError)
    assert said[1:] == [None]
    assert {r["request_id"] for r in rows(folder)} == {"r-2"}


@pytest.mark.parametrize("days", [1, 30])
def test_files_go_when_they_are_old(tmp_path: Path, days: int):
    for age in (0, 10, 40):
        path = tmp_path / f"old-{age}.parquet"
        pq.write_table(to_table([answer(age)]), path)
        at = (datetime.now(UTC) - timedelta(days=age)).timestamp()
        os.utime(path, (at, at))
    log = opened(tmp_path, keep=timedelta(days=days))
    log.close()
    assert {p.name for p in tmp_path.iterdir()} == {f"old-{age}.parquet" for age in (0, 10, 40) if age < days}
