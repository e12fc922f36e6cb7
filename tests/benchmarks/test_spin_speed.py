"""Threads that compute together beside a busy process, spinning as libgomp does by itself and as `recsys` has them."""

import os
import subprocess
import sys
import textwrap

import pytest

from jobs.command import SPINS

_STEPS = textwrap.dedent(
    """
    import time, torch
    torch.set_num_threads(2)
    x, w = torch.rand(4096, 128), torch.rand(128, 128)
    start = time.perf_counter()
    for _ in range(1500):
        y = (x @ w).relu_().sub_(1.0)
    print(time.perf_counter() - start)
    """
)


def _seconds(spins: str | None, busy: bool) -> float:
    env = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        done = subprocess.run(
            [sys.executable, "-c", _STEPS], capture_output=True, text=True, check=True, timeout=600,
            env=env if spins is None else env | {"GOMP_SPINCOUNT": spins},
        )  # fmt: skip
    finally:
        if other is not None:
            other.kill()
            other.wait()
    return float(done.stdout)


def test_threads_that_sleep_while_they_wait(capsys: pytest.CaptureFixture[str]) -> None:
    found = {(busy, spins): _seconds(spins, busy) for busy in (False, True) for spins in (None, SPINS)}
    with capsys.disabled():
        for (busy, spins), seconds in found.items():
            print(
                f"\n{'beside a busy process' if busy else 'alone'}, spins {spins or 'as ever'}: {seconds:.2f} s", end=""
            )
        print()
    assert found[True, SPINS] <= found[True, None] / 1.2
    assert found[False, SPINS] <= found[False, None] * 1.3
