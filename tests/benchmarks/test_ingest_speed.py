"""A million events of a team's own, and ten million: seconds, memory, and that the one is a tenth of the other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
_INGEST = """
import json, resource, sys, time
from pathlib import Path
from recsys.ingest.land import land
from recsys.ingest.mapping import read_mapping
from recsys.workbench import Workbench
folder = Path(sys.argv[1])
start = time.perf_counter()
with Workbench(folder / ".spill") as bench:
    made = land(read_mapping(folder / "mapping.toml"), bench, *(folder / n for n in ("landing", "ids", "quarantine")))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"seconds": time.perf_counter() - start, "peak_gb": peak, "rows": made.figures["interactions"]}))
"""


def ingested(folder: Path, events: int) -> dict[str, float]:
    with Workbench(folder / ".spill") as bench:
        sql = _EVENTS.format(events=events, users=events // 100, places=events // 200)
        bench.run(f"COPY ({sql}) TO '{folder / 'events.csv'}' (HEADER)")
    (folder / "mapping.toml").write_text(_MAPPING)
    command = [sys.executable, "-c", _INGEST, str(folder)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.fixture(scope="module")
def million(tmp_path_factory) -> dict[str, float]:
    return ingested(tmp_path_factory.mktemp("million"), 1_000_000)


def said(figures: dict[str, float]) -> str:
    return f"{figures['seconds']:.1f} s, {figures['peak_gb']:.2f} GB, {figures['rows']:,} rows"


def test_a_million_events_take_seconds(million):
    print(f"\n1,000,000 events: {said(million)}")
    assert million["rows"] > 990_000
    assert million["seconds"] <= 30  # the gate behind it has as long again
    assert million["peak_gb"] <= 4


def test_ten_million_take_ten_times_as_long(million, tmp_path):
    large = ingested(tmp_path, 10_000_000)
    print(f"\n10,000,000 events: {said(large)}; {large['seconds'] / million['seconds']:.1f} times as long")
    assert large["seconds"] <= 15 * million["seconds"]
    assert large["peak_gb"] <= 6
