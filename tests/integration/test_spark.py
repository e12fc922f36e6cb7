"""One definition, two engines: what Spark makes of the project's SQL is what DuckDB makes of it.

Spark runs for real, in this process, on Java; where it is missing these tests fail.
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.lake import Lake
from recsys.profiles import views
from recsys.spark import Spark
from tests.conftest import Filled

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def lake(filled: Filled) -> Iterator[Lake]:
    with Lake(filled.data_dir) as made:
        yield made


@pytest.fixture(scope="module")
def spark(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spark]:
    """One session for all tests: a JVM takes seconds to start."""
    made = Spark(lake.sources, master="local[2]", memory_limit_gb=1.0, scratch=tmp_path_factory.mktemp("spark"))
    yield made
    made.close()


def same(ours: pa.Table, theirs: pa.Table) -> None:
    """Same columns and types, and the same rows in the same order; floats to 1e-6.

    DuckDB says of some columns that they are never null; Spark's files never say so.
    """
    assert [(f.name, f.type) for f in theirs.schema] == [(f.name, f.type) for f in ours.schema]
    assert len(theirs) == len(ours)
    for name in ours.column_names:
        left, right = ours[name].combine_chunks(), theirs[name].combine_chunks()
        if pa.types.is_list(left.type):
            assert left.value_lengths() == right.value_lengths(), name
            left, right = left.flatten(), right.flatten()
        if pa.types.is_floating(left.type):
            np.testing.assert_allclose(right.to_numpy(), left.to_numpy(), rtol=1e-6, atol=1e-6, err_msg=name)
        else:
            assert right == left, name


GIVEN, DERIVED = views({}), views({"derived": True})


@pytest.mark.parametrize(
    ("queries", "days_ago"),
    [
        (GIVEN, None),
        ({view: query for view, query in GIVEN.items() if "$after" in query}, 9),
        ({view: query for view, query in DERIVED.items() if query != GIVEN[view]}, None),
    ],
    ids=["all", "what is new", "derived"],
)
def test_every_view_is_the_same_file(
    lake: Lake, spark: Spark, filled: Filled, tmp_path: Path, queries: dict[str, str], days_ago: int | None
):
    after = filled.start if days_ago is None else filled.end - days_ago * DAY
    given = {"start": filled.start, "after": after, "end": filled.end - timedelta(hours=7)}
    ours, theirs = {}, {}
    for view, query in queries.items():
        params = {name: value for name, value in given.items() if f"${name}" in query}
        one, other = tmp_path / "duckdb" / view, tmp_path / "spark" / view
        rows = lake.write(query, one, params, files=ours)
        assert spark.write(query, other, params, files=theirs) == rows
        ours[view], theirs[view] = [one], [other]
        assert rows
        same(pq.read_table(one), pq.read_table(other))
        mine, others = (pq.read_metadata(path).row_group(0) for path in (one, other))
        for i in range(mine.num_columns):
            left, right = mine.column(i), others.column(i)
            assert (right.path_in_schema, right.physical_type) == (left.path_in_schema, left.physical_type)
            assert right.compression == left.compression
    assert not list(tmp_path.rglob(".*"))  # what Spark wrote on the way is gone
