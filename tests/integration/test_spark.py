"""One definition, two engines: what Spark makes of the project's SQL is what DuckDB makes of it.

Spark runs for real, in this process, on Java; where it is missing these tests fail.
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expectations import SIZES_SQL, SUITES, VIEW_SUITES, Bounds
from recsys.errors import DataError
from recsys.features import FeatureStore
from recsys.lake import Lake
from recsys.profiles import views
from recsys.quality import N_EXAMPLES, check
from recsys.spark import Spark
from tests.conftest import ROOT, Filled
from tests.contract.test_expectations import BOUNDS, land_broken
from tests.tables import same

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


def test_point_in_time_sets_are_the_same(filled: Filled, spark: Spark, tmp_path: Path):
    """Both of Feast's offline stores over the same files, at moments between which rows lie, with ids nobody has."""
    (tmp_path / "features").symlink_to(filled.data_dir / "features")
    rng = np.random.default_rng(5)
    spines = {
        "train_users_v1": {"user_id": rng.integers(0, 180, 300)},
        "train_places_v1": {"place_id": rng.integers(0, 140, 300)},
        # 1 and 11, 11 and 1: keys that are alike when they are written one after another
        "train_user_place_v1": {"user_id": np.arange(2400) // 120, "place_id": np.arange(2400) % 120},
        "train_user_user_v1": {"user_u": rng.integers(0, 80, 900), "user_v": rng.integers(80, 160, 900)},
    }
    joined: dict[str, list[pa.Table]] = {service: [] for service in spines}
    for yaml in ("feature_store.yaml", "feature_store.cluster.yaml"):
        store = FeatureStore(ROOT / "feature_repo", data_dir=tmp_path, redis_url=filled.redis_url, yaml=yaml)
        assert store.apply() == {"entities": 4, "views": 7, "services": 8}
        for service, spine in spines.items():
            joined[service].append(store.historical(service, spine, filled.end - timedelta(days=8, hours=5)))
        store.close()
    for ours, theirs in joined.values():
        assert 0 < ours[-1].null_count < len(ours)
        same(ours, theirs)


def test_the_gate_finds_the_same_in_broken_rows(spark: Spark, tmp_path: Path):
    """Whichever engine derives what is looked at: the same rows are rejected, for the same reasons."""
    cases = land_broken(tmp_path)
    with Lake(tmp_path) as lake:
        other = Spark(lake.sources, master="local[2]", memory_limit_gb=1.0, scratch=tmp_path / "scratch")
        for name, broken in cases.items():
            suite, landed = SUITES[name](BOUNDS), {"landing": tmp_path / f"{name}.parquet"}
            ours, theirs = (check(e.derive(suite.sql, landed), suite) for e in (lake, other))
            assert theirs.rejected == ours.rejected, name
            assert (theirs.rows, theirs.failed) == (ours.rows, ours.failed)
            # of many, the first that came are kept: an order that neither engine promises
            few = [{k: sorted(v) for k, v in e.examples.items() if len(v) < N_EXAMPLES} for e in (ours, theirs)]
            assert few[0] == few[1]
            assert len(ours.rejected) == len(broken)
    assert not list((tmp_path / "scratch").glob("*/part-*"))


def test_rows_of_new_views_are_judged_alike(lake: Lake, spark: Spark, filled: Filled):
    bounds = Bounds.of(lake.source(), lake.query(SIZES_SQL).to_pylist()[0])
    for view in ("user_profile", "user_activity", "user_recent"):
        (part,) = (filled.data_dir / "features" / f"{view}.parquet").glob("*.parquet")
        suite = VIEW_SUITES[view](bounds)
        ours, theirs = (pa.concat_tables(e.derive(suite.sql, {"landing": part})) for e in (lake, spark))
        ours, theirs = (table.sort_by("row").to_pandas() for table in (ours, theirs))
        pd.testing.assert_frame_equal(theirs, ours, check_dtype=False, rtol=1e-6)


def test_what_spark_refuses_is_said_in_a_line(spark: Spark, tmp_path: Path):
    with pytest.raises(DataError, match=r"^Spark: .*nowhere.*cannot be found") as refused:
        spark.write("SELECT 1 AS a FROM nowhere", tmp_path / "a.parquet")
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())
