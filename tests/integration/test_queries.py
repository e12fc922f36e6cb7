"""The queries of docs/queries.md, each run as a reader would, on a small world with something in every quarantine."""

import re
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.lake import Lake
from recsys.settings import ROOT
from tests.conftest import Filled

PAGE = (ROOT / "docs/queries.md").read_text()
QUERIES = dict(re.findall(r"\*\*(.+?)\*\*.*?```sql\n(.*?)```", PAGE, flags=re.DOTALL))


@pytest.fixture(scope="module")
def asked(filled: Filled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    for part in ("lake", "features"):
        shutil.copytree(filled.data_dir / part, folder / part)
    for part in ("quarantine", "ids"):
        (folder / part).mkdir()
    bad = pq.read_table(folder / "lake/interactions.parquet").slice(0, 3)
    pq.write_table(
        bad.append_column("reason", pa.array(["late", "late", "odd"])), folder / "quarantine/interactions.parquet"
    )
    row = {"source": "a", "section": "events", "file": "e.csv", "row": 3, "reason": "time is missing", "content": "{}"}
    pq.write_table(pa.Table.from_pylist([row]), folder / "quarantine/ingest.parquet")
    ids = pa.table({"id": range(20), "source": ["a"] * 20, "source_id": [f"u-{i}" for i in range(20)]})
    pq.write_table(ids, folder / "ids/users.parquet")
    return folder


def test_there_are_ten() -> None:
    assert len(QUERIES) == 10


@pytest.mark.parametrize("question", QUERIES)
def test_a_query_of_the_page_has_an_answer(asked: Path, question: str) -> None:
    with Lake(asked) as lake:
        rows = lake.query(QUERIES[question]).to_pylist()
    assert rows
    assert any(value not in (None, 0) for row in rows for value in row.values())
    assert rows[0].get("from_the_future", 0) == 0


def test_an_answer_can_be_a_parquet_file(asked: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "jobs",
        "sql",
        "SELECT user_id, cat_pref FROM users ORDER BY 1",
        "--format",
        "parquet",
    ]
    env = {"RECSYS_DATA_DIR": str(asked), "PATH": ""}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, check=True)
    there = pq.read_table(BytesIO(done.stdout))
    assert there.equals(pq.read_table(asked / "lake/users.parquet", columns=["user_id", "cat_pref"]).cast(there.schema))
