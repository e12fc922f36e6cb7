"""A step of the retrieval loss over a large city's places, by memory that is mapped anew and by memory used again."""

import os
import subprocess
import sys
import textwrap

import pytest

_STEPS = textwrap.dedent(
    """
    import resource, sys, time
    from contextlib import nullcontext
    import torch
    from torch.nn import functional as F
    from recsys.heap import reused
    from recsys.training.inputs import CityCatalogue
    from recsys.training.objective import in_city_softmax
    from recsys.training.processes import ALONE

    torch.set_num_threads(2)
    queries, places, d = 6144, 9000, 128
    g = torch.Generator().manual_seed(0)
    query, items = (F.normalize(torch.randn(n, d, generator=g), dim=1).requires_grad_() for n in (queries, places))
    target = torch.randint(places, (queries,), generator=g)
    catalogue, tau = CityCatalogue.build(torch.zeros(places, dtype=torch.int64), 1), torch.tensor(0.1)
    seconds = []
    with reused() if sys.argv[1] == "again" else nullcontext():
        for _ in range(12):
            start = time.perf_counter()
            in_city_softmax(query, items, target, catalogue, tau, 4096, g, ALONE.share(queries)).backward()
            seconds.append(time.perf_counter() - start)
    print(min(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
    """
)


def _step(memory: str) -> tuple[float, float]:
    """Seconds of the fastest of twelve steps, and the process's peak in GiB."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", _STEPS, memory], capture_output=True, text=True, check=True, env=env)
    seconds, gb = done.stdout.split()
    return float(seconds), float(gb)


def test_memory_that_is_used_again(capsys: pytest.CaptureFixture[str]) -> None:
    anew, again = _step("anew"), _step("again")
    with capsys.disabled():
        for name, (seconds, gb) in (("mapped anew", anew), ("used again", again)):
            print(f"\n6,144 queries, 4,096 places, memory {name}: {seconds:.3f} s, peak {gb:.2f} GB", end="")
        print()
    assert again[0] <= anew[0] / 1.2
