"""The main job at 300 x 300 with the profile of a cluster, in minutes: Spark for SQL and for Feast, a registry in SQL,
a Redis Cluster of three nodes.
"""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from tests.cluster import cluster
from tests.installed import Installation, install, serving
from tests.tables import same


@pytest.fixture(scope="module")
def on_spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("cluster")
    with cluster(folder / "servers") as nodes:
        made = install(folder, RECSYS_ENGINE="spark", RECSYS_REDIS_URL=nodes.url)
        made.run("pipeline")
        keys = [node.client.dbsize() for node in nodes.primaries]
        assert min(keys) > 0.25 * sum(keys)
        yield made


def test_spark_ends_where_duckdb_does(installed: Installation, on_spark: Installation):
    for job in ("validate", "materialize"):
        assert (installed.report(job)["engine"], on_spark.report(job)["engine"]) == ("duckdb", "spark")
    for view in sorted(path.name for path in (installed.data / "features").glob("*.parquet")):
        same(pq.read_table(installed.data / "features" / view), pq.read_table(on_spark.data / "features" / view))
    for job, figure in (
        ("validate", "users"), ("materialize", "keys_online"), ("train", "version"), ("evaluate", "places"),
    ):  # fmt: skip
        assert on_spark.report(job)[figure] == installed.report(job)[figure], job
    assert (on_spark.data / "registry.sqlite").exists()
    assert not (on_spark.data / "registry.db").exists()


def test_it_serves_without_java(on_spark: Installation, tmp_path: Path):
    with serving(on_spark, JAVA_HOME=str(tmp_path)) as base:
        answer = httpx.post(f"{base}/recommend/places", json={"user_id": 7}, timeout=30).json()
    assert len(answer["recommendations"]) >= 10
    assert answer["degraded"] == []


def test_what_did_not_change_is_not_made_again(on_spark: Installation):
    said = on_spark.run("materialize").stderr
    assert "the online store is filled from these data already: nothing to do" in said
