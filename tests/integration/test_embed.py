"""`recsys embed`: the vectors that training exports, made part by part from the lake and the feature store."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import embed
from recsys.artifacts import newest, open_artifact
from recsys.settings import Settings
from tests.installed import Installation, copied
from tests.served import quiet


@pytest.fixture(scope="module")
def made(installed: Installation, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    copy = copied(installed, tmp_path_factory.mktemp("embed"))
    return Settings(
        data_dir=copy.data, redis_url=copy.env["RECSYS_REDIS_URL"], feature_repo=copy.root / "feature_repo",
        _env_file=None,
    )  # fmt: skip


def run(settings: Settings, **options: object) -> dict:
    report = quiet("embed", settings)
    embed.run(settings, report, part_users=70, **options)
    return report.figures


def users(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("users/part-*.parquet")))


def test_the_vectors_are_those_that_training_exports(made: Settings) -> None:
    said = run(made)
    artifact = open_artifact(made.artifacts, newest(made.artifacts))
    folder = Path(said["folder"])
    assert (said["version"], said["users"], said["places"], said["parts"]) == (artifact.version, 300, 300, 5)
    for mine, theirs in (
        (users(folder), artifact.table("users")),
        (pq.read_table(folder / "places.parquet"), artifact.table("places")),
    ):
        for name in set(mine.column_names) - {"embedding", "people"}:
            assert mine[name].to_pylist() == theirs[name].to_pylist(), name
        for name in {"embedding", "people"} & set(mine.column_names):
            ours, expected = (np.stack(table[name].to_pylist()) for table in (mine, theirs))
            assert np.abs(ours - expected).max() <= 1e-5, name
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "places.parquet", "run.json", "users"}
    before = {path: path.stat().st_mtime_ns for path in folder.glob("users/*")}
    assert run(made)["unchanged"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_an_earlier_moment_is_another_run_in_the_place_of_the_first(made: Settings) -> None:
    said = run(made, until=datetime(2024, 2, 5, tzinfo=UTC))
    assert said["until"].startswith("2024-02-05")
    assert said["users"] < 300  # some came later
    assert len(users(Path(said["folder"]))) == said["users"]
