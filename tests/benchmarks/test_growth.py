"""One full-graph step of the backbone on a generated graph: peak memory and seconds per million edges.

A tenth of the size runs with `make bench`. The whole of it (a million users, 100,000 places, 30 million pairs) takes
minutes and much of a machine's memory: `pytest tests/benchmarks/test_growth.py -m long -s`.
"""

import json
import math
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass

import pytest
import torch

USERS, PLACES, PAIRS, TIES = 1_000_000, 100_000, 30_000_000, 2_500_000

# Users, places, pairs, ties, how parts are made and the device come as arguments. Features are drawn: sizes and the
# pattern decide what a step costs.
_PROGRAM = textwrap.dedent(
    """
    import json, sys, time
    from pathlib import Path
    import torch
    from torch.nn import functional as F
    from recsys.models import backbone
    from recsys.models.backbone import D_PAIR_FEATURES, Backbone, GraphInputs
    from recsys.models.config import ModelConfig
    from recsys.models.sparse import Relation

    torch.set_num_threads(2)
    torch.manual_seed(0)
    n_users, n_places, n_pairs, n_ties = (int(value) for value in sys.argv[1:5])
    if sys.argv[5] == "twice":
        backbone.RECOMPUTE_FROM = 0
    device = sys.argv[6]

    def most():
        if device == "cuda":
            return torch.cuda.max_memory_allocated() / 2**30
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20

    def reset():
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        Path("/proc/self/clear_refs").write_text("5")

    def distinct(n, n_from, n_to, popular):
        # (2, n) sorted by source; the ends that are chosen crowd towards low numbers where some are popular
        drawn = int(n * 1.3)
        to = (torch.rand(drawn) ** (2 if popular else 1) * n_to).long().clamp_(max=n_to - 1)
        key = torch.unique(torch.randint(n_from, (drawn,)) * n_to + to)
        key = key[torch.randperm(len(key))[:n]].sort().values
        assert len(key) == n
        return torch.stack([key // n_to, key % n_to])

    def nodes(n, width, ids):
        x = torch.rand(n, width)
        x[:, ids] = 0.0
        return x

    config = ModelConfig(dropout=0.1)
    start = time.perf_counter()
    ties = distinct(n_ties, n_users, n_users, False)
    ties = torch.cat([ties, ties.flip(0)], dim=1)
    graph = GraphInputs(
        user_x=nodes(n_users, config.widths.d_user, [0, 1]),
        area_ids=torch.zeros(n_users, 5, dtype=torch.int64),
        place_x=nodes(n_places, config.widths.d_place, [0, 1, *(config.widths.place_x[name][0] for name in
                      ("price_band", "typical_time_slot"))]),
        pairs=Relation.from_edges(distinct(n_pairs, n_users, n_places, True), n_users, n_places),
        pair_features=torch.rand(D_PAIR_FEATURES, n_pairs),
        ties=Relation.from_edges(ties, n_users, n_users),
        tie_features=torch.rand(3, 2 * n_ties),
    )
    del ties
    built, built_gb = time.perf_counter() - start, most()
    model = Backbone(config)
    model.fit_scales(graph)
    model, graph = model.to(device), graph.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    user, place = (torch.randint(n, (1024,)).to(device) for n in (n_users, n_places))

    def settled():
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    seconds, cpu_seconds, losses = [], [], []
    reset()
    held_gb = most()
    for _ in range(2 if device == "cpu" else 10):
        start, cpu = settled(), time.process_time()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            out = model(graph)
        logits = out.user[user] @ out.place[place].t() / 0.1 + out.people[user] @ out.user[user].t() / 0.1
        loss = F.cross_entropy(logits, torch.arange(1024, device=device))
        forward = settled() - start
        loss.backward()
        optimizer.step()
        seconds.append(settled() - start)
        cpu_seconds.append(time.process_time() - cpu)
        losses.append(float(loss.detach()))
        del out, logits
    print(json.dumps({"built": built, "built_gb": built_gb, "held_gb": held_gb, "peak_gb": most(), "forward": forward,
                      "seconds": min(seconds), "cpu_seconds": min(cpu_seconds), "loss": losses[1]}))
    """
)


@dataclass(frozen=True)
class Step:
    """What a step cost; memory is the whole process's, or what was allocated on the GPU, in GiB."""

    built: float
    built_gb: float
    held_gb: float
    peak_gb: float
    forward: float
    seconds: float
    cpu_seconds: float
    loss: float  # of the second step


def _step(share: float, parts: str, device: str = "cpu") -> Step:
    sizes = [str(int(size * share)) for size in (USERS, PLACES, PAIRS, TIES)]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *sizes, parts, device],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    return Step(**json.loads(done.stdout))


def _say(share: float, parts: str, step: Step) -> None:
    edges = (PAIRS + 2 * TIES) * share / 1e6
    print(
        f"\n{int(USERS * share):,} users, {int(PLACES * share):,} places, {int(PAIRS * share):,} pairs and "
        f"{int(TIES * share):,} ties, parts made {parts}\n"
        f"  graph made in {step.built:.0f} s, peak {step.built_gb:.2f} GB; held {step.held_gb:.2f} GB\n"
        f"  one full-graph step {step.seconds:.3g} s (forward {step.forward:.3g}, CPU time {step.cpu_seconds:.3g}), "
        f"{step.seconds / edges:.2g} s per million edges, peak {step.peak_gb:.2f} GB"
    )


def test_a_tenth_and_what_making_parts_twice_saves(capsys: pytest.CaptureFixture[str]) -> None:
    once, twice = _step(0.1, "once"), _step(0.1, "twice")
    with capsys.disabled():
        _say(0.1, "once", once)
        _say(0.1, "twice", twice)
    assert twice.loss == once.loss
    assert twice.peak_gb <= 0.75 * once.peak_gb
    assert twice.peak_gb <= 2  # of which the ten-fold is 20


@pytest.mark.long
def test_a_million_users_in_20_gb(capsys: pytest.CaptureFixture[str]) -> None:
    step = _step(1, "by size")
    with capsys.disabled():
        _say(1, "by size", step)
    assert step.peak_gb <= 20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU here")
def test_on_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    here, there, whole = _step(0.05, "once"), _step(0.05, "once", "cuda"), _step(1, "once", "cuda")
    with capsys.disabled():
        _say(0.05, "once", here)
        print(f"\n{torch.cuda.get_device_name()}, layers multiply in bfloat16", end="")
        _say(0.05, "once", there)
        _say(1, "once", whole)
    assert there.loss == pytest.approx(here.loss, rel=0.05)
    assert math.isfinite(whole.loss)
    assert there.seconds <= here.seconds / 10
