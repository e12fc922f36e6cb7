"""Status shows what is there, and never fails over what is not."""

import asyncio
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from jobs import status
from jobs.report import Report
from recsys.artifacts import save_artifact
from recsys.index import Vectors, open_index
from recsys.services import start, stop
from recsys.settings import Settings
from tests.conftest import free_port


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, redis_url=f"redis://127.0.0.1:{free_port()}/0", _env_file=None)


def look(settings: Settings) -> tuple[dict, str]:
    out = io.StringIO()
    report = Report("status", settings.reports, Console(file=out, width=160))
    status.run(settings, report)
    json.dumps(report.figures)
    return report.figures, out.getvalue()


def test_an_empty_folder_names_the_command_for_everything(settings: Settings):
    figures, text = look(settings)
    assert figures["landing"]["users"] is None
    assert figures["online_store"] is None
    assert figures["artifacts"] == []
    assert figures["index"] == {"live": None, "versions": []}
    for command in ("generate", "validate", "materialize", "up", "train", "publish", "evaluate"):
        assert f"run `recsys {command}`" in text


def test_rows_age_versions_and_the_last_jobs(settings: Settings):
    settings.lake.mkdir()
    pq.write_table(pa.table({"user_id": list(range(1_234))}), settings.lake / "users.parquet")
    save_artifact(settings.artifacts, "v1", {"created_at": "2024-01-01"}, tables={}, tensors={})
    one = np.eye(1, 128, dtype=np.float32)
    places = Vectors(np.array([1]), np.array([0]), {"embedding": one})
    users = Vectors(np.array([1]), np.array([0]), {"embedding": one, "people": one})
    index = open_index(settings.index)
    asyncio.run(index.publish("v1", places, users))
    asyncio.run(index.close())
    trained = Report("train", settings.reports)
    trained.finish()
    figures, text = look(settings)
    assert figures["lake"]["users"]["rows"] == 1_234
    assert 0 <= figures["lake"]["users"]["age_s"] < 60
    assert figures["artifacts"] == ["v1"]
    assert figures["index"] == {"live": "v1", "versions": ["v1"]}
    assert 0 <= figures["jobs"]["train"]["age_s"] < 60
    assert "1,234 rows" in text
    assert "v1 live" in text


def test_a_served_index_can_be_looked_at(settings: Settings):
    """The pointer is read, no shard is opened: the API holds their locks."""
    one = np.eye(1, 128, dtype=np.float32)
    places = Vectors(np.array([1]), np.array([0]), {"embedding": one})
    users = Vectors(np.array([1]), np.array([0]), {"embedding": one, "people": one})
    serving = open_index(settings.index)
    asyncio.run(serving.publish("v1", places, users))
    assert asyncio.run(serving.search("places", one[0], city_id=0, limit=1)).ids.tolist() == [1]
    assert look(settings)[0]["index"]["live"] == "v1"
    asyncio.run(serving.close())


def test_damaged_files_are_lines_not_errors(settings: Settings):
    settings.landing.mkdir()
    (settings.landing / "users.parquet").write_bytes(b"not parquet [bold]")
    settings.reports.mkdir()
    (settings.reports / "train.json").write_text("{")
    (settings.reports / "publish.json").write_text('{"started_at": 3}')
    settings.index.mkdir()
    (settings.index / "live.json").write_text("{")
    figures, text = look(settings)
    assert "error" in figures["landing"]["users"]
    assert "train.json is damaged" in figures["jobs"]["train"]["error"]
    assert "publish.json is damaged" in figures["jobs"]["publish"]["error"]
    assert "error" in figures["index"]
    assert "train.json is damaged" in text.replace("\n", "")


def test_the_online_store_is_counted_while_it_runs(settings: Settings):
    start(settings.redis_url, settings.redis)
    try:
        assert look(settings)[0]["online_store"]["keys"] == 0
        assert look(settings)[0]["online_store"]["memory_mb"] >= 0
    finally:
        assert stop(settings.redis_url, settings.redis)
    assert look(settings)[0]["online_store"] is None
