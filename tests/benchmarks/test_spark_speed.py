"""Spark beside DuckDB at the default size: the same views and the same point-in-time sets. Figures are printed.

RECSYS_BENCH_DATA names a data folder of the default world, which is only read; without, one is made.
"""

import os
import shutil
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.features import FeatureStore
from recsys.lake import Lake
from recsys.profiles import views
from recsys.spark import Spark
from recsys.world import WorldConfig, generate
from tests.conftest import ROOT
from tests.tables import same

DAY = timedelta(days=1)
NOWHERE = "redis://127.0.0.1:1/0"  # history needs no online store


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    folder = tmp_path_factory.mktemp("default")
    if there := os.environ.get("RECSYS_BENCH_DATA"):
        (folder / "lake").symlink_to(Path(there) / "lake")
    else:
        generate(WorldConfig(), folder / "lake")
    with Lake(folder, memory_limit_gb=3.0) as made:
        yield made


@pytest.fixture(scope="module")
def spark(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spark]:
    began = time.perf_counter()
    scratch = tmp_path_factory.mktemp("spark")
    made = Spark(lake.sources, master="local[2]", memory_limit_gb=3.0, scratch=scratch)
    print(f"\nSpark's session: {time.perf_counter() - began:.1f} s")
    yield made
    made.close()
    shutil.rmtree(scratch)


@pytest.fixture(scope="module")
def made(lake: Lake, spark: Spark, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder each for what DuckDB and Spark made of the views, for `features/` of a data folder."""
    folder = tmp_path_factory.mktemp("made")
    start, end = lake.horizon()
    for view, query in views(lake.source()).items():
        params = {name: m for name, m in {"start": start, "after": start, "end": end}.items() if f"${name}" in query}
        took = []
        for engine, name in ((lake, "duckdb"), (spark, "spark")):
            began = time.perf_counter()
            rows = engine.write(query, folder / name / "features" / f"{view}.parquet" / "all.parquet", params)
            took.append(time.perf_counter() - began)
        print(f"{view}: {rows:,} rows, DuckDB {took[0]:.1f} s, Spark {took[1]:.1f} s")
    return folder


def read(made: Path, engine: str, view: str) -> pa.Table:
    return pq.read_table(made / engine / "features" / f"{view}.parquet" / "all.parquet")


def test_every_view_is_the_same(lake: Lake, made: Path):
    for view in views(lake.source()):
        same(read(made, "duckdb", view), read(made, "spark", view))


def test_point_in_time_sets_are_the_same(lake: Lake, spark: Spark, made: Path):
    _, end = lake.horizon()
    rng, n = np.random.default_rng(3), 10_000
    pairs = read(made, "duckdb", "user_place").select(["user_id", "place_id"]).to_pandas().sample(n, random_state=3)
    ties = read(made, "duckdb", "user_user").select(["user_u", "user_v"]).to_pandas().sample(n, random_state=3)
    spines = {
        "train_users_v1": {"user_id": rng.permutation(n)},
        "train_places_v1": {"place_id": rng.permutation(n)},
        "train_user_place_v1": {name: pairs[name].to_numpy() for name in pairs},
        "train_user_user_v1": {name: ties[name].to_numpy() for name in ties},
    }
    joined: dict[str, list[pa.Table]] = {service: [] for service in spines}
    for name, yaml in (("duckdb", "feature_store.yaml"), ("spark", "feature_store.cluster.yaml")):
        store = FeatureStore(ROOT / "feature_repo", data_dir=made / name, redis_url=NOWHERE, yaml=yaml)
        store.apply()
        for service, spine in spines.items():
            began = time.perf_counter()
            joined[service].append(store.historical(service, spine, end - 9 * DAY))
            print(f"{service}: {n:,} rows, {name} {time.perf_counter() - began:.1f} s")
        store.close()
    for ours, theirs in joined.values():
        same(ours, theirs)
