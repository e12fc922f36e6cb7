"""The sparse layer against a loop over edges, and its gradients."""

import pytest
import torch
from torch import Tensor

from recsys.errors import DataError
from recsys.models.sparse import EdgeGates, Relation, aggregate, weighted_sum

CASES = {
    "square": (7, 7, 20),
    "wide": (11, 3, 17),
    "tall": (3, 11, 17),
    "one edge": (4, 5, 1),
    "empty": (4, 5, 0),
    "full": (3, 4, 12),
}


def edges(n_source: int, n_target: int, n: int, seed: int = 0) -> Tensor:
    """Distinct edges in no order."""
    drawn = torch.randperm(n_source * n_target, generator=torch.Generator().manual_seed(seed))[:n]
    return torch.stack([drawn // n_target, drawn % n_target])


def dense_loop(edge_index: Tensor, weight: Tensor, x: Tensor, n_target: int, how: str) -> Tensor:
    rows = []
    for t in range(n_target):
        arriving = [e for e in range(edge_index.shape[1]) if int(edge_index[1, e]) == t]
        total = torch.zeros(x.shape[1], dtype=x.dtype)
        for e in arriving:
            total = total + weight[e] * x[edge_index[0, e]]
        over = {"sum": 1.0, "mean": max(len(arriving), 1), "attention": sum(float(weight[e]) for e in arriving) or 1.0}
        rows.append(total / over[how])
    return torch.stack(rows)


@pytest.mark.parametrize("how", ["sum", "mean", "attention"])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_loop(case: str, how: str) -> None:
    n_source, n_target, n = CASES[case]
    index = edges(n_source, n_target, n)
    generator = torch.Generator().manual_seed(1)
    weight, x = torch.rand(n, generator=generator) + 0.1, torch.randn(n_source, 5, generator=generator)
    relation = Relation.from_edges(index, n_source, n_target)
    got = aggregate(relation, weight, x, how)  # type: ignore[arg-type]
    torch.testing.assert_close(got, dense_loop(index, weight, x, n_target, how), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("how", ["sum", "mean", "attention"])
@pytest.mark.parametrize("case", ["square", "wide", "tall", "one edge", "empty"])
def test_gradients(case: str, how: str) -> None:
    n_source, n_target, n = CASES[case]
    relation = Relation.from_edges(edges(n_source, n_target, n), n_source, n_target)
    weight = (torch.rand(n, dtype=torch.float64) + 0.5).requires_grad_()
    x = torch.randn(n_source, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w, v: aggregate(relation, w, v, how), (weight, x))  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["sum", "mean", "attention"])
@pytest.mark.parametrize("case", [*CASES, "repeated"])
def test_32_bit_values_and_gradients_equal_the_loop(case: str, how: str) -> None:
    """In training's own precision and at its width: its kernels are not those of gradcheck's 64 bits."""
    n_source, n_target, n = CASES.get(case, (2, 3, 40))  # "repeated": more edges than pairs of nodes
    g = torch.Generator().manual_seed(2)
    index = edges(n_source, n_target, n)
    if case == "repeated":
        index = torch.stack([torch.randint(n_source, (n,), generator=g), torch.randint(n_target, (n,), generator=g)])
    relation = Relation.from_edges(index, n_source, n_target)
    weight, x = torch.rand(n, generator=g) + 0.5, torch.randn(n_source, 128, generator=g)
    upstream = torch.randn(n_target, 128, generator=g)
    got_leaves = weight.clone().requires_grad_(), x.clone().requires_grad_()
    got = aggregate(relation, *got_leaves, how)  # type: ignore[arg-type]
    got.backward(upstream)
    leaves = weight.double().requires_grad_(), x.double().requires_grad_()
    per_edge = leaves[1][index[0]] * leaves[0][:, None]
    want = torch.zeros(n_target, 128, dtype=torch.float64).index_add(0, index[1], per_edge)
    arrived = torch.ones(n, dtype=torch.float64) if how == "mean" else leaves[0]
    if how != "sum":
        total = torch.zeros(n_target, dtype=torch.float64).index_add(0, index[1], arrived)
        want = want / torch.where(total == 0, 1.0, total)[:, None]
    want.backward(upstream.double())
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(got_leaves, leaves, strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad.double(), theirs.grad, atol=1e-5, rtol=1e-5)


def test_steps_use_the_pattern_and_never_sort_again(monkeypatch: pytest.MonkeyPatch) -> None:
    index = edges(30, 20, 200).flip(1)
    relation = Relation.from_edges(index, 30, 20)

    def again(*args: object, **kwargs: object) -> None:
        raise AssertionError("sorted in a step")

    for name in ("argsort", "sort", "bincount", "unique"):
        monkeypatch.setattr(torch, name, again)
    for direction, n in ((relation, 30), (relation.flip(), 20)):
        weight, x = torch.rand(200, requires_grad=True), torch.randn(n, 4, requires_grad=True)
        aggregate(direction, weight, x).sum().backward()
    with pytest.raises(AssertionError, match="sorted in a step"):
        Relation.from_edges(index, 30, 20)


def test_flip_is_the_transpose_and_shares_its_tensors() -> None:
    index = edges(6, 4, 13)
    relation = Relation.from_edges(index, 6, 4)
    weight, x = torch.rand(13), torch.randn(4, 3)
    flipped = relation.flip()
    torch.testing.assert_close(weighted_sum(flipped, weight, x), dense_loop(index.flip(0), weight, x, 6, "sum"))
    assert flipped.by_target.columns is relation.by_source.columns
    assert flipped.flip() == relation or flipped.flip().by_target is relation.by_target


def test_a_node_without_edges_gets_zeros() -> None:
    relation = Relation.from_edges(torch.tensor([[0, 1], [2, 2]]), 2, 4)
    out = aggregate(relation, torch.ones(2), torch.ones(2, 3), "mean")
    assert out.tolist() == [[0.0] * 3, [0.0] * 3, [1.0] * 3, [0.0] * 3]
    assert relation.degree.tolist() == [0, 0, 2, 0]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (torch.tensor([[0, 5], [0, 0]]), r"source must lie in \[0, 3\)"),
        (torch.tensor([[0, 1], [0, -1]]), r"target must lie in \[0, 3\)"),
        (torch.tensor([0, 1]), r"shape \(2, E\)"),
    ],
)
def test_edges_to_nowhere_are_refused(index: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Relation.from_edges(index, 3, 3)


def test_weights_and_nodes_must_fit() -> None:
    relation = Relation.from_edges(edges(3, 3, 4), 3, 3)
    with pytest.raises(DataError, match="4 edges from 3 nodes"):
        weighted_sum(relation, torch.ones(5), torch.ones(3, 2))
    with pytest.raises(DataError, match="4 edges from 3 nodes"):
        weighted_sum(relation, torch.ones(4), torch.ones(2, 2))


def test_gates_start_near_one_stay_positive_and_learn() -> None:
    torch.manual_seed(0)
    gates = EdgeGates(12, 4, 8)
    features = torch.rand(12, 50)
    out = gates(features)
    assert out.shape == (4, 50)
    assert bool((out > 0).all())
    assert float((out - 1).abs().mean().detach()) < 0.2
    out.sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in gates.parameters())
