"""A world of 10,000 x 10,000, and one ten times as large: seconds, memory and seconds per interaction."""

import json
import os
import subprocess
import sys

import pytest

_MAKE = """
import json, resource, sys, time
from pathlib import Path
from recsys.world import WorldConfig, generate
start = time.perf_counter()
made = generate(WorldConfig(users=int(sys.argv[1]), places=int(sys.argv[2])), Path(sys.argv[3]), workers=2)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"seconds": seconds, "peak_gb": peak, "interactions": made.figures["interactions"]}))
"""


def made(users: int, places: int, folder) -> dict[str, float]:
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # as the command does: the workers are the parallelism
    command = [sys.executable, "-c", _MAKE, str(users), str(places), str(folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def said(figures: dict[str, float]) -> str:
    return f"{figures['seconds']:.1f} s, {figures['peak_gb']:.2f} GB, {figures['interactions']:,} interactions"


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict[str, float]:
    return made(10_000, 10_000, tmp_path_factory.mktemp("small"))


def test_the_default_world_takes_seconds(small):
    print(f"\n10,000 x 10,000: {said(small)}")
    assert small["seconds"] <= 20
    assert small["peak_gb"] <= 4


def test_a_ten_times_larger_world_takes_minutes_and_little_more_memory(small, tmp_path):
    large = made(100_000, 50_000, tmp_path)
    each = [m["seconds"] / m["interactions"] for m in (small, large)]
    print(f"\n100,000 x 50,000: {said(large)}; {each[1] / each[0]:.2f} times the time per interaction")
    assert large["interactions"] > 20_000_000
    assert large["seconds"] <= 300
    assert large["peak_gb"] <= 6
    assert each[1] <= 1.5 * each[0]
