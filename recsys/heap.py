"""What becomes of memory that a job frees: by default glibc gives it back, and the kernel has to zero it once more."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_TRIM, _MMAP, _ARENAS = -1, -3, -8  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX of <malloc.h>
_MIB: Final = 1 << 20
_LARGEST: Final = 128 * _MIB  # of larger ones the holes between them would cost too much memory
_KEPT: Final = 1024 * _MIB
_USUAL: Final = 32 * _MIB  # where glibc's own threshold, which grows with what is freed, ends


@contextmanager
def reused(*, threads: bool = False) -> Iterator[None]:
    """Arrays of up to 128 MiB that are freed in this block are used again by it; at its end they are given back.

    glibc maps every array of more than 32 MiB anew, and each page is a fault and is zeroed when it is first touched:
    for a loss over a large city's places that is a third of the time or more (`tests/benchmarks/test_heap_speed.py`).
    Does nothing where there is another C library.

    Args:
        threads: arrays of threads begun in this block as well. They share one heap then, where each would have several
            of 64 MiB, mapped and unmapped as arrays come and go. For few threads that make large arrays.
    """
    libc = ctypes.CDLL(None)
    mallopt, trim = (getattr(libc, name, None) for name in ("mallopt", "malloc_trim"))
    if mallopt is None or trim is None:
        yield
        return
    mallopt(_MMAP, _LARGEST)
    mallopt(_TRIM, _KEPT)
    if threads:
        mallopt(_ARENAS, 1)
    try:
        yield
    finally:
        mallopt(_MMAP, _USUAL)
        mallopt(_TRIM, 2 * _USUAL)
        if threads:
            mallopt(_ARENAS, 0)  # glibc's own number
        trim(0)
