"""Several processes that learn together end as one alone does: `torchrun` itself, over a small planted world."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from recsys.models.dropout import Dropout
from recsys.models.share import Share
from recsys.training.processes import Processes, joined
from recsys.training.trainer import finish
from recsys.training.vectors import learn
from tests.planted import Planted
from tests.unit.test_trainer import SMALL

ROOT = Path(__file__).resolve().parents[2]


def train(folder: Path, processes: Processes, *, kill_at: int | None = None) -> None:
    """What each process does: learn the vectors; the first one finishes and writes what came out."""
    world = Planted(n_users=50, n_places=60, weeks=5, visits=5)
    # a city larger than the softmax's sample, and rows that two processes cannot share evenly
    config = replace(SMALL, step=replace(SMALL.step, max_candidates=20, positives=255, companions=63))

    def kill(progress: Any) -> None:
        if processes.first and (progress.epoch, progress.step) == (kill_at, 2):
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint = folder / "run.safetensors"
    snapshots = [world.snapshot(2), world.snapshot(3)], world.snapshot(4)
    learned = learn(*snapshots, config, processes=processes, checkpoint=checkpoint, on_progress=kill)
    state = {name: value.clone() for name, value in learned.model.state_dict().items()}
    save_file(state, folder / f"vectors-{processes.rank}.safetensors")
    if processes.first:
        fitted = finish(learned)
        figures = {"history": fitted.history, "valid": fitted.valid.to_dict(), "reads": fitted.reads}
        (folder / "figures.json").write_text(json.dumps(figures), encoding="utf-8")


def torchrun(folder: Path, size: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={size}", f"--master-port={port}"]
    command += ["-m", "tests.integration.test_processes", str(folder), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    with joined("cpu") as processes:
        assert processes == Processes()
        train(folder, processes)
    return folder


def same(folder: Path, alone: Path) -> None:
    """Weights to rounding, the same in every process to the bit, and every metric nearly."""
    ours, theirs = (json.loads((f / "figures.json").read_text()) for f in (folder, alone))
    for mine, one in zip(ours["history"], theirs["history"], strict=True):
        assert mine["stage"] == one["stage"]
        for name in ("ndcg", "ndcg_new"):
            assert mine.get(name) == pytest.approx(one.get(name), abs=2e-3), mine
        assert mine.get("losses", {}) == pytest.approx(one.get("losses", {}), rel=1e-5)
    assert ours["reads"] == theirs["reads"]
    assert ours["valid"]["rows"]["model"] == pytest.approx(theirs["valid"]["rows"]["model"], abs=2e-3)
    first, second = (load_file(folder / f"vectors-{rank}.safetensors") for rank in range(2))
    expected = load_file(alone / "vectors-0.safetensors")
    for name, value in expected.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, atol=1e-4, rtol=1e-4, msg=name)


def test_two_processes_end_as_one_also_when_killed(alone: Path, tmp_path: Path) -> None:
    died = torchrun(tmp_path, 2, "1")
    assert died.returncode != 0
    assert "SIGKILL" in died.stderr
    assert not (tmp_path / "figures.json").exists()
    done = torchrun(tmp_path, 2)  # goes on from the last whole epoch
    assert done.returncode == 0, done.stderr[-4000:]
    same(tmp_path, alone)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("total", [0, 1, 5, 700])
def test_shares_are_a_partition(total: int, size: int) -> None:
    shares = [Processes(rank, size).share(total) for rank in range(size)]
    assert torch.cat([share.of(torch.arange(total)) for share in shares]).tolist() == list(range(total))
    assert (
        torch.cat([share.among(torch.arange(total).flip(0)) for share in shares[::-1]]).tolist()
        == list(range(total))[::-1]
    )
    assert sum(share.weight for share in shares) == pytest.approx(float(total > 0))
    assert max(s.stop - s.start for s in shares) - min(s.stop - s.start for s in shares) <= 1


def test_a_share_drops_what_the_whole_batch_drops() -> None:
    batch = torch.rand(9, 4) + 1.0
    torch.manual_seed(3)
    whole = Dropout(0.4)(batch)
    parts = []
    for start, stop in ((0, 4), (4, 9)):
        torch.manual_seed(3)
        parts.append(Share(start, stop, 9).dropout(batch[start:stop], 0.4))
    assert torch.equal(torch.cat(parts), whole)
    assert 0 < int((whole == 0).sum()) < 36


if __name__ == "__main__":
    with joined("cpu") as started:
        train(Path(sys.argv[1]), started, kill_at=int(sys.argv[2]) if sys.argv[2:] else None)
