"""A million events of a team's own, and ten million: seconds, memory, and that the one is a tenth of the other."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.settings import ROOT
from recsys.workbench import Workbench

_MAPPING = """
[[source]]
name = "big"
city = "City"
[source.events]
files = "events.csv"
user = "user"
place = "place"
time = "at"
category = "category"
"""
_EVENTS = """
SELECT hash(i, 'user') % {users} AS user, concat('p', hash(i, 'place') % {places}) AS place,
       TIMESTAMP '2024-01-01' + to_seconds((hash(i, 'at') % 7776000)::BIGINT) AS at,
       concat('kind ', hash(i, 'place') % {places} % 40) AS category
FROM range({events}) t(i)
"""


def laid_down(folder: Path, events: int) -> dict[str, float]:
    """What `recsys ingest` and `recsys validate` say of so many events, added up."""
    with Workbench(folder / ".spill") as bench:
        sql = _EVENTS.format(events=events, users=events // 100, places=events // 200)
        bench.run(f"COPY ({sql}) TO '{folder / 'events.csv'}' (HEADER)")
    (folder / "mapping.toml").write_text(_MAPPING)
    env = {**os.environ, "RECSYS_DATA_DIR": str(folder / "data")}
    said = []
    for job in (["ingest", str(folder / "mapping.toml")], ["validate"]):
        command = [sys.executable, "-m", "jobs", *job, "--json"]
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=True)
        said.append(json.loads(done.stdout))
    figures = {
        "ingest": said[0]["seconds"],
        "validate": said[1]["seconds"],
        "rows": said[1]["interactions"]["accepted"],
    }
    return figures | {
        "seconds": sum(s["seconds"] for s in said), "peak_gb": max(s["peak_rss_mb"] for s in said) / 1024,
    }  # fmt: skip


@pytest.fixture(scope="module")
def million(tmp_path_factory) -> dict[str, float]:
    return laid_down(tmp_path_factory.mktemp("million"), 1_000_000)


def said(figures: dict[str, float]) -> str:
    parts = f"ingest {figures['ingest']:.1f} s, validate {figures['validate']:.1f} s"
    return f"{figures['seconds']:.1f} s ({parts}), {figures['peak_gb']:.2f} GB, {figures['rows']:,} rows"


def test_a_million_events_take_seconds(million):
    print(f"\n1,000,000 events: {said(million)}")
    assert million["rows"] > 990_000
    assert million["seconds"] <= 60
    assert million["peak_gb"] <= 4


def test_ten_million_take_ten_times_as_long(million, tmp_path):
    large = laid_down(tmp_path, 10_000_000)
    print(f"\n10,000,000 events: {said(large)}; {large['seconds'] / million['seconds']:.1f} times as long")
    assert large["seconds"] <= 15 * million["seconds"]
    assert large["peak_gb"] <= 6
