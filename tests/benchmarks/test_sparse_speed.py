"""The sparse layer beside one message per edge: forward and backward at 1.5 million edges × 128, in one run."""

import os
import subprocess
import sys
import textwrap

import pytest

EDGES, NODES, WIDTH = 1_500_000, 10_000, 128

# Each side in its own process, so that peak memory is its own.
_PROGRAM = textwrap.dedent(
    f"""
    import resource, sys, time
    import torch
    from recsys.models.sparse import Relation, aggregate
    torch.set_num_threads(2)
    g = torch.Generator().manual_seed(0)
    # distinct pairs without a large temporary, which would hide the layer's own peak: equal steps, shuffled names
    each = {EDGES} // {NODES}
    row = torch.arange({NODES}).repeat_interleave(each)
    column = (torch.arange({NODES}).repeat_interleave(each) * 7919 + torch.arange(each).repeat({NODES}) * 61) % {NODES}
    index = torch.stack([row, torch.randperm({NODES}, generator=g)[column]])
    x = torch.randn({NODES}, {WIDTH}, generator=g).requires_grad_()
    weight = torch.rand({EDGES}, generator=g).requires_grad_()
    upstream = torch.randn({NODES}, {WIDTH}, generator=g)
    relation = Relation.from_edges(index, {NODES}, {NODES})
    degree = relation.degree.clamp(min=1).float()[:, None]
    del row, column

    def sparse():
        return aggregate(relation, weight, x, "mean")

    def messages():
        sent = x.index_select(0, index[0]) * weight[:, None]
        return torch.zeros({NODES}, {WIDTH}).index_add(0, index[1], sent) / degree

    layer = {{"sparse": sparse, "messages": messages}}[sys.argv[1]]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    best = float("inf")
    for _ in range(int(sys.argv[2])):
        x.grad = weight.grad = None
        start = time.perf_counter()
        out = layer()
        out.backward(upstream)
        best = min(best, time.perf_counter() - start)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(best, peak, float(out.detach().double().pow(2).sum()), float(x.grad.double().pow(2).sum()),
          float(weight.grad.double().pow(2).sum()))
    """
)


def _measure(layer: str, repeats: int) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, layer, str(repeats)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    return [float(value) for value in done.stdout.split()]


def test_at_least_25_times_faster_than_a_message_per_edge(capsys: pytest.CaptureFixture[str]) -> None:
    fast, fast_mb, *fast_sums = _measure("sparse", 7)
    slow, slow_mb, *slow_sums = _measure("messages", 2)
    with capsys.disabled():
        print(f"\n{EDGES:,} edges × {WIDTH}, forward and backward, 2 threads")
        print(f"  one message per edge {slow * 1e3:8.0f} ms   peak {slow_mb:6.0f} MB more")
        print(f"  sparse products      {fast * 1e3:8.0f} ms   peak {fast_mb:6.0f} MB more")
        print(f"  {slow / fast:.0f} times faster, {fast_mb / slow_mb:.2f} of the memory")
    assert fast_sums == pytest.approx(slow_sums, rel=1e-4)
    assert slow / fast >= 25
    assert fast_mb <= slow_mb / 5
