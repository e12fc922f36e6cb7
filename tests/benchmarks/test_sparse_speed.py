"""The sparse layer beside one message per edge: forward and backward at 1.5 million edges × 128, in one run."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from recsys.models.sparse import Relation

EDGES, NODES, WIDTH = 1_500_000, 10_000, 128

# Each side in its own process, so that peak memory is its own. What it works on is loaded, not built: the builder's
# freed memory would hide the layer's own peak.
_PROGRAM = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    import torch
    from recsys.models.sparse import Pattern, Relation, aggregate
    torch.set_num_threads(2)
    graph = torch.load(sys.argv[3])
    index, x, weight, upstream = (graph[name] for name in ("index", "x", "weight", "upstream"))
    n = len(x)
    relation = Relation(n, n, Pattern(*graph["by_target"]), Pattern(*graph["by_source"]))
    degree = relation.degree.clamp(min=1).float()[:, None]
    x.requires_grad_(), weight.requires_grad_()

    def sparse():
        return aggregate(relation, weight, x, "mean")

    def messages():
        sent = x.index_select(0, index[0]) * weight[:, None]
        return torch.zeros_like(x).index_add(0, index[1], sent) / degree

    layer = {"sparse": sparse, "messages": messages}[sys.argv[1]]
    def most():  # not getrusage, whose figure a child inherits from its parent
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    Path("/proc/self/clear_refs").write_text("5")  # the most from here on
    before = most()
    best = float("inf")
    for _ in range(int(sys.argv[2])):
        x.grad = weight.grad = None
        start = time.perf_counter()
        out = layer()
        out.backward(upstream)
        best = min(best, time.perf_counter() - start)
    print(best, most() - before, float(out.detach().double().pow(2).sum()), float(x.grad.double().pow(2).sum()),
          float(weight.grad.double().pow(2).sum()))
    """
)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A file of distinct random pairs with their pattern, and the pattern's size in MB."""
    g = torch.Generator().manual_seed(0)
    pair = torch.randperm(NODES * NODES, generator=g)[:EDGES]
    index = torch.stack([pair // NODES, pair % NODES])
    index = index[:, torch.argsort(index[0], stable=True)]  # by source, as the graph builder gives them
    relation = Relation.from_edges(index, NODES, NODES)
    patterns = {
        name: (pattern.starts, pattern.columns, pattern.order, pattern.rank)
        for name, pattern in (("by_target", relation.by_target), ("by_source", relation.by_source))
    }
    tensors = {
        "index": index.clone(),
        "x": torch.randn(NODES, WIDTH, generator=g),
        "weight": torch.rand(EDGES, generator=g),
        "upstream": torch.randn(NODES, WIDTH, generator=g),
    }
    path = tmp_path_factory.mktemp("graph") / "graph.pt"
    torch.save(tensors | patterns, path)
    held = sum(t.nbytes for pattern in patterns.values() for t in pattern if t is not None)
    return path, held / 2**20


def _measure(layer: str, repeats: int, graph: Path) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, layer, str(repeats), str(graph)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    return [float(value) for value in done.stdout.split()]


def test_at_least_25_times_faster_than_a_message_per_edge(
    graph: tuple[Path, float], capsys: pytest.CaptureFixture[str]
) -> None:
    path, pattern_mb = graph
    slow, slow_mb, *slow_sums = _measure("messages", 3, path)
    fast, fast_mb, *fast_sums = _measure("sparse", 15, path)
    with capsys.disabled():
        print(f"\n{EDGES:,} edges × {WIDTH}, forward and backward, 2 threads")
        print(f"  one message per edge {slow * 1e3:8.0f} ms   peak {slow_mb:6.0f} MB more")
        print(f"  sparse products      {fast * 1e3:8.0f} ms   peak {fast_mb:6.0f} MB more, pattern {pattern_mb:.0f} MB")
        print(f"  {slow / fast:.0f} times faster, {(fast_mb + pattern_mb) / slow_mb:.2f} of the memory")
    assert fast_sums == pytest.approx(slow_sums, rel=1e-4)
    assert slow / fast >= 25
    assert fast_mb + pattern_mb <= slow_mb / 5
