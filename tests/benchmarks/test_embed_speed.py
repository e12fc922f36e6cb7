"""Streaming inference over generated users: users a second, memory, and what a kill costs.

`RECSYS_BENCH_USERS=5000000 pytest tests/benchmarks/test_embed_speed.py -s` is five million; it takes 17 GB of disk.
"""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

USERS = int(os.environ.get("RECSYS_BENCH_USERS", 400_000))
PLACES, PAIRS, TIES = 50_000, 10, 5  # edges of a user

# The folder and the number of users come as arguments. Features and edges are drawn: sizes decide what a pass costs.
_PROGRAM = textwrap.dedent(
    """
    import json, os, sys, time
    from pathlib import Path
    import numpy as np
    import torch
    from recsys.graph import Edges
    from recsys.models.backbone import D_PAIR_FEATURES
    from recsys.models.config import ModelConfig
    from recsys.models.model import RecModel
    from recsys.training.partitions import PART_USERS, Parts, write_part
    from recsys.training.streaming import stream

    folder, n_users, n_places, n_pairs, n_ties = Path(sys.argv[1]), *(int(value) for value in sys.argv[2:6])
    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ.get("RECSYS_THREADS", 2)))
    model = RecModel(ModelConfig()).eval()
    widths = model.config.widths
    place_x = torch.rand(n_places, widths.d_place)
    place_x[:, [0, 1, widths.place_x["price_band"][0], widths.place_x["typical_time_slot"][0]]] = 0.0
    for number, start in enumerate(range(0, n_users, PART_USERS)):
        path = folder / "input" / f"part-{number:05d}.parquet"
        if path.exists():
            continue
        rng = np.random.default_rng(number)
        n = min(PART_USERS, n_users - start)
        x = rng.random((n, widths.d_user), dtype=np.float32)
        x[:, :2] = 0.0
        pairs = Edges(np.repeat(np.arange(n), n_pairs), rng.integers(0, n_places, n * n_pairs), None, {})
        ties = Edges(
            rng.integers(0, n_users, n * n_ties), np.repeat(np.arange(n), n_ties),
            rng.random((n * n_ties, 3), dtype=np.float32), {},
        )
        features = torch.from_numpy(rng.random((D_PAIR_FEATURES, n * n_pairs), dtype=np.float32))
        areas = np.zeros((n, 5), dtype=np.int64)
        write_part(path, np.arange(start, start + n), torch.from_numpy(x), areas, pairs, features, ties)

    def memory():
        said = Path("/proc/self/status").read_text()
        return int(said.split("VmHWM:")[1].split()[0]) / 2**20

    Path("/proc/self/clear_refs").write_text("5")
    start, cpu = time.perf_counter(), time.process_time()

    def show(done, of):
        spent = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
        print(json.dumps({"done": done, "of": of, "peak_gb": memory(), **spent}), flush=True)

    stream(model, place_x, Parts(folder / "input"), folder, "bench", on_progress=show)
    """
)


def start(folder: Path, users: int) -> "subprocess.Popen[str]":
    sizes = [str(size) for size in (users, PLACES, PAIRS, TIES)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", _PROGRAM, str(folder), *sizes]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def finished(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, _ = process.communicate()
    assert process.returncode == 0
    return line(out.splitlines()[-1])


def line(text: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(text)
    return said


def killed(folder: Path, users: int, share: float) -> dict[str, Any]:
    """What a run said last before it was killed, so much of the work done."""
    process = start(folder, users)
    with process:
        assert process.stdout is not None
        said = next(at for at in map(line, process.stdout) if at["done"] >= share * at["of"])
        process.send_signal(signal.SIGKILL)
    return said


def test_memory_is_flat_and_a_killed_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = finished(start(tmp_path / "small", USERS // 4))
    first = killed(tmp_path / "all", USERS, 0.8)  # among the vectors, which are the last third
    there = {path: path.stat().st_mtime_ns for path in (tmp_path / "all" / "users").glob("part-*.parquet")}
    rest = finished(start(tmp_path / "all", USERS))
    assert there
    assert {path: path.stat().st_mtime_ns for path in there} == there
    nothing = finished(start(tmp_path / "all", USERS))
    seconds, cpu_seconds = (first[name] + rest[name] for name in ("seconds", "cpu_seconds"))
    peak = max(first["peak_gb"], rest["peak_gb"])
    with capsys.disabled():
        print(
            f"\n{USERS:,} users, {PLACES:,} places, {PAIRS} places and {TIES} friends each\n"
            f"  {USERS / seconds:,.0f} users a second, {USERS / cpu_seconds:,.0f} a second of processor time\n"
            f"  killed after {first['seconds']:.0f} s with {len(there)} parts of vectors made, "
            f"the rest took {rest['seconds']:.0f} s, another start {nothing['seconds']:.1f} s\n"
            f"  a quarter of the users: {USERS // 4 / small['seconds']:,.0f} users a second\n"
            f"  peak {peak:.2f} GB, of a quarter of the users {small['peak_gb']:.2f} GB"
        )
    assert peak <= 1.1 * small["peak_gb"]
