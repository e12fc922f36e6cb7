"""Status shows what is there, and never fails over what is not."""

import asyncio
import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
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
from tests.conftest import ROOT, free_port


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
    started_at = trained.finish()["started_at"]
    settings.quarantine.mkdir()
    rejected = settings.quarantine / "places.parquet"
    pq.write_table(pa.table({"place_id": [1, 2, 3]}), rejected)
    hours = datetime.now(UTC).timestamp() - 3 * 3_600 - 60
    os.utime(rejected, (hours, hours))
    figures, text = look(settings)
    assert figures["jobs"]["train"]["started_at"] == started_at
    assert figures["quarantine"]["places"]["rows"] == 3
    assert datetime.fromisoformat(figures["quarantine"]["places"]["written_at"]).timestamp() == pytest.approx(hours)
    assert "3 rows, 3 h ago" in text
    assert figures["quarantine"]["users"]["rows"] == 0, "accepted, and nothing was rejected"
    assert figures["quarantine"]["interactions"] is None, "not validated yet"
    assert figures["lake"]["users"]["rows"] == 1_234
    assert 0 <= figures["lake"]["users"]["age_s"] < 60
    assert figures["artifacts"] == ["v1"]
    assert figures["index"] == {"live": "v1", "versions": ["v1"]}
    assert 0 <= figures["jobs"]["train"]["age_s"] < 60
    assert "1,234 rows" in text
    assert "v1 live" in text


def test_a_served_index_can_be_looked_at(settings: Settings):
    """Whoever else reads it."""
    one = np.eye(1, 128, dtype=np.float32)
    places = Vectors(np.array([1]), np.array([0]), {"embedding": one})
    users = Vectors(np.array([1]), np.array([0]), {"embedding": one, "people": one})
    serving = open_index(settings.index)
    asyncio.run(serving.publish("v1", places, users))
    reader = asyncio.run(serving.reader("v1"))
    assert asyncio.run(reader.search("places", one[0], city_id=0, limit=1)).ids.tolist() == [1]
    assert look(settings)[0]["index"] == {"live": "v1", "versions": ["v1"]}
    asyncio.run(reader.close())


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


@pytest.mark.parametrize("seconds", ["null", '"x"', "[]"])
def test_a_report_with_a_figure_of_another_type_is_a_line(settings: Settings, seconds: str):
    settings.reports.mkdir()
    content = f'{{"started_at": "2024-01-01T00:00:00+00:00", "seconds": {seconds}}}'
    (settings.reports / "train.json").write_text(content)
    assert "train.json is damaged" in look(settings)[0]["jobs"]["train"]["error"]


@pytest.mark.parametrize("content", ["[]", "null", "{", "[1, 2]"])
def test_a_damaged_manifest_does_not_hide_the_other_versions(settings: Settings, content: str):
    for version, manifest in (("v1", content), ("v2", '{"created_at": "2024-01-01"}')):
        (settings.artifacts / version).mkdir(parents=True)
        (settings.artifacts / version / "manifest.json").write_text(manifest)
    assert look(settings)[0]["artifacts"] == ["v1", "v2"]


def test_a_name_that_looks_like_markup_is_shown_as_it_is(settings: Settings):
    settings.index.mkdir()
    (settings.index / "live.json").write_text('{"live": "v[bold]1", "previous": null}')
    assert "v[bold]1 live" in look(settings)[1]


def test_an_index_server_that_is_away_is_a_line(settings: Settings):
    away = settings.model_copy(update={"qdrant_url": f"http://127.0.0.1:{free_port()}"})
    assert "did not answer" in look(away)[0]["index"]["error"]


def test_it_is_quick_because_it_imports_no_engine():
    code = "import sys, jobs.status; print([m for m in ('feast', 'duckdb', 'great_expectations') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_online_store_is_counted_while_it_runs(settings: Settings):
    start(settings.redis_url, settings.redis)
    try:
        assert look(settings)[0]["online_store"]["keys"] == 0
        assert look(settings)[0]["online_store"]["memory_mb"] >= 0
    finally:
        assert stop(settings.redis_url, settings.redis)
    assert look(settings)[0]["online_store"] is None
