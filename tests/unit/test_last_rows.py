"""The last row of every key of a view in parts, some at a time: what one look at all of it would give."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.refresh import last_rows

START = datetime(2024, 1, 1, tzinfo=UTC)
KEYS = ("user_id", "place_id")


def written(folder: Path, rng: np.random.Generator) -> list[dict]:
    """A view of three parts, each of several row groups, its rows in order of their stamps."""
    rows = []
    folder.mkdir()
    for part in range(3):
        days = np.sort(rng.integers(10 * part, 10 * part + 10, 40))
        some = [
            {"user_id": int(rng.integers(4)), "place_id": int(rng.integers(5)),
             "event_timestamp": START + timedelta(days=int(day)), "state": rng.random(rng.integers(1, 4)).tolist()}
            for day in days
        ]  # fmt: skip
        schema = pa.schema(
            [(name, pa.int64()) for name in KEYS]
            + [("event_timestamp", pa.timestamp("us", "UTC")), ("state", pa.list_(pa.float64()))]
        )
        table = pa.Table.from_pylist(some, schema=schema)
        pq.write_table(table, folder / f"{START + timedelta(days=10 * part):%Y-%m-%d}.parquet", row_group_size=7)
        rows += some
    return rows


@pytest.mark.parametrize("at_once", [1, 6, 1_000])
@pytest.mark.parametrize("after", [START - timedelta(days=1), START + timedelta(days=14), START + timedelta(days=99)])
def test_rows_are_the_last_of_their_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int, after: datetime
) -> None:
    rows = written(tmp_path / "view", np.random.Generator(np.random.Philox(3)))
    monkeypatch.setattr("recsys.refresh._ROWS", at_once)
    expected = {}
    for row in rows:
        if row["event_timestamp"] > after:
            expected[row["user_id"], row["place_id"]] = (row["event_timestamp"], row["state"])
    tables = list(last_rows(tmp_path / "view", KEYS, after))
    found = [row for table in tables for row in table.to_pylist()]
    assert {(r["user_id"], r["place_id"]): (r["event_timestamp"], r["state"]) for r in found} == expected
    assert len(found) == len(expected)
    assert sum(len(table) > 0 for table in tables) <= max(1, len(expected))
    if at_once == 1_000:
        assert len(tables) <= 1
