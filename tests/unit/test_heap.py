"""Memory that is freed while it is to be used again costs no page faults, and is given back at the end."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

N = 16 << 20  # floats: 64 MiB

# In a process of its own: what ran before in this one would leave holes that arrays of the test fit into.
_PROGRAM = textwrap.dedent(
    """
    import json, resource, sys
    from pathlib import Path
    import torch
    from recsys.heap import reused

    def faults(times):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(times):
            torch.empty(int(sys.argv[1])).fill_(1.0)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    def held():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    found = {"anew": faults(10), "before": held()}
    try:
        with reused():
            faults(20)  # holes have to fit
            found |= {"again": faults(10), "within": held()}
            if sys.argv[2] == "error":
                raise ZeroDivisionError
    except ZeroDivisionError:
        found["raised"] = 1
    print(json.dumps(found | {"after": held()}))
    """
)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
@pytest.mark.parametrize("end", ["well", "error"])
def test_what_is_freed_is_used_again_and_given_back(end: str) -> None:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    program = [sys.executable, "-c", _PROGRAM, str(N), end]
    found = json.loads(subprocess.run(program, capture_output=True, text=True, check=True, env=env).stdout)
    assert ("raised" in found) == (end == "error")
    assert found["again"] < found["anew"] / 20
    assert found["within"] > found["before"] + 2 * N  # half an array
    assert found["after"] < found["before"] + 2 * N


_THREAD = textwrap.dedent(
    """
    import resource, sys
    from concurrent.futures import ThreadPoolExecutor
    import numpy as np
    from recsys.heap import reused

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            arrays = [np.zeros(10 << 20, dtype=np.int8) + 1 for _ in range(20)]  # of more than a thread's heap holds
            del arrays
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with reused(threads=sys.argv[1] == "threads"), ThreadPoolExecutor(1) as pool:
        pool.submit(faults).result()
        print(pool.submit(faults).result())
    """
)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_what_a_thread_frees_is_used_again() -> None:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    anew, again = (
        int(
            subprocess.run(
                [sys.executable, "-c", _THREAD, of], capture_output=True, text=True, check=True, env=env
            ).stdout
        )
        for of in ("main", "threads")
    )
    assert again < anew / 20
