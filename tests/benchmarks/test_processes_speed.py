"""Two processes of `torchrun` on two cores against one process of two threads: time, and what the versions reach."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from jobs.scorecard import against
from recsys.artifacts import open_artifact
from recsys.services import stop
from recsys.settings import Settings
from tests.conftest import ROOT, free_port

SIZE = int(os.environ.get("RECSYS_BENCH_WORLD", 1_000))  # users, and as many places
EPOCHS = 4
MORE_TIME = 1.2


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("processes") / "data"
    url = f"redis://127.0.0.1:{free_port()}/0"
    yield Settings(
        data_dir=folder, redis_url=url, feature_repo=ROOT / "feature_repo", users=SIZE, places=SIZE, epochs=EPOCHS,
        _env_file=None,
    )  # fmt: skip
    stop(url, folder / "redis")


def run(settings: Settings, *stages: str, threads: int, processes: int = 1) -> None:
    said = {
        "RECSYS_DATA_DIR": str(settings.data_dir),
        "RECSYS_REDIS_URL": settings.redis_url,
        "RECSYS_USERS": str(SIZE),
        "RECSYS_PLACES": str(SIZE),
        "RECSYS_EPOCHS": str(EPOCHS),
        "RECSYS_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
    }
    command = [sys.executable]
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}"]
    for stage in stages:
        subprocess.run([*command, "-m", "jobs", stage], cwd=ROOT, env=os.environ | said, check=True)


def trained(settings: Settings, **how: int) -> dict[str, Any]:
    run(settings, "train", **how)
    said: dict[str, Any] = json.loads((settings.reports / "train.json").read_text(encoding="utf-8"))
    return said


def test_two_processes_reach_what_one_does_in_about_its_time(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run(settings, "generate", "validate", "materialize", threads=2)
    one = trained(settings, threads=2)
    two = trained(settings, threads=1, processes=2)
    assert one["version"] != two["version"]  # threads are part of what makes a run
    compared = against(settings, open_artifact(settings.artifacts, two["version"]), one["version"])
    assert compared.difference is not None
    with capsys.disabled():
        print(f"\n{SIZE:,} users, {SIZE:,} places, {EPOCHS} epochs; NDCG@10 of the test weeks")
        for name, said, ndcg in (
            ("one process, two threads", one, compared.serving_ndcg),
            ("two processes, one thread each", two, compared.ndcg),
        ):
            print(f"  {name}: fit {said['stages_s']['fit']:.1f} s, in all {said['seconds']:.1f} s, {ndcg:.4f}")
        low, high = compared.difference["low"], compared.difference["high"]
        print(f"  difference {compared.difference['mean']:+.4f} ({low:+.4f} to {high:+.4f})")
    assert low <= 0 <= high
    assert two["stages_s"]["fit"] <= MORE_TIME * one["stages_s"]["fit"]
