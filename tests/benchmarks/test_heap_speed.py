"""A step of the retrieval loss over a large city's places, by memory that is mapped anew and by memory used again."""

import time
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch.nn import functional as F

from recsys.heap import reused
from recsys.training.inputs import CityCatalogue
from recsys.training.objective import in_city_softmax
from recsys.training.processes import ALONE

QUERIES, PLACES, D, CANDIDATES = 6144, 9000, 128, 4096


def _step(within: AbstractContextManager[None]) -> float:
    """Seconds of the fastest of some."""
    g = torch.Generator().manual_seed(0)
    query, items = (F.normalize(torch.randn(n, D, generator=g), dim=1).requires_grad_() for n in (QUERIES, PLACES))
    target = torch.randint(PLACES, (QUERIES,), generator=g)
    catalogue, tau = (
        CityCatalogue.build(torch.zeros(PLACES, dtype=torch.int64), 1),
        torch.tensor(0.1, requires_grad=True),
    )
    seconds = []
    with within:
        for _ in range(6):
            start = time.perf_counter()
            loss = in_city_softmax(query, items, target, catalogue, tau, CANDIDATES, g, ALONE.share(QUERIES))
            loss.backward()  # type: ignore[no-untyped-call]
            seconds.append(time.perf_counter() - start)
    return min(seconds)


def test_memory_that_is_used_again(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [(_step(nullcontext()), _step(reused())) for _ in range(3)]
    anew, again = (min(side) for side in zip(*pairs, strict=True))
    with capsys.disabled():
        print(f"\n{QUERIES:,} queries, {CANDIDATES:,} places: mapped anew {anew:.3f} s, used again {again:.3f} s")
    assert again <= anew / 1.15
