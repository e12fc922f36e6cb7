"""Memory that is freed while it is to be used again costs no page faults, and is given back at the end."""

import resource
import sys
from pathlib import Path

import pytest
import torch

from recsys.heap import reused

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
N = 16 << 20  # floats: 64 MiB


def _faults(times: int) -> int:
    """Page faults of an array made, filled and freed so often."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.empty(N).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def _held() -> int:
    """Bytes of memory that the process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_what_is_freed_is_used_again_and_given_back() -> None:
    anew, before = _faults(10), _held()
    with reused():
        _faults(20)  # holes have to fit
        again = _faults(10)
        held = _held()
    assert again < anew / 20
    assert held > before + 2 * N  # half an array
    assert _held() < before + 2 * N


def test_an_error_ends_it_too() -> None:
    _faults(1)
    before = _held()
    with pytest.raises(ZeroDivisionError), reused():
        _ = _faults(20) / 0
    assert _held() < before + 2 * N
