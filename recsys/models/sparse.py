"""Edge-aware neighbour aggregation as sparse products.

One message per edge costs E × d floats forward and backward. The same sum is a product of a sparse matrix (one row
a target node, one value an edge) with the dense node matrix, and so are its gradients: that of the nodes is the
product with the transpose, that of the values the product of the two dense matrices sampled at the pattern
(`torch.sparse.sampled_addmm`). PyTorch's own autograd for CSR values gives a gradient of the wrong shape where
pairs repeat, hence one autograd function here.

On a CPU a product of 32-bit floats runs as a weighted `embedding_bag`, whose kernel (FBGEMM) fetches ahead and takes
half the time of the CSR product; the numbers are the same.
"""

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.errors import DataError
from recsys.models.config import Aggregation


@cache
def _expect_beta_warning() -> None:
    """PyTorch says once a process that CSR is in beta; it is tested here, so the message has no reader."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        empty = torch.zeros(0, dtype=torch.int64)
        torch.sparse_csr_tensor(torch.zeros(1, dtype=torch.int64), empty, empty.float(), (0, 0), check_invariants=False)


@dataclass(frozen=True)
class Pattern:
    """Where a sparse matrix has values: CSR row starts (R + 1,), columns (E,), and which edge each value is.

    `order` (E,) holds edge numbers in CSR order and `rank` (E,) each edge's place in it; both None when the edges
    already come in that order.
    """

    starts: Tensor
    columns: Tensor
    order: Tensor | None
    rank: Tensor | None

    def arrange(self, weight: Tensor) -> Tensor:
        """(E,) by edge number → (E,) in CSR order."""
        return weight if self.order is None else weight.index_select(0, self.order)

    def restore(self, values: Tensor) -> Tensor:
        """(E,) in CSR order → (E,) by edge number."""
        return values if self.rank is None else values.index_select(0, self.rank)

    def matrix(self, values: Tensor, n_columns: int) -> Tensor:
        """CSR tensor of these values, without copying the pattern."""
        _expect_beta_warning()
        size = (len(self.starts) - 1, n_columns)
        return torch.sparse_csr_tensor(self.starts, self.columns, values, size, check_invariants=False)

    def to(self, device: torch.device | str) -> "Pattern":
        """The same pattern on another device."""
        order, rank = (None if t is None else t.to(device) for t in (self.order, self.rank))
        return Pattern(self.starts.to(device), self.columns.to(device), order, rank)


@dataclass(frozen=True)
class Relation:
    """The edges of one relation, built once a graph: the pattern, its transpose and the degrees.

    Attributes:
        n_source, n_target: number of nodes at either end.
        by_target: one row a target node, one column a source node.
        by_source: the transpose.
    """

    n_source: int
    n_target: int
    by_target: Pattern
    by_source: Pattern

    @classmethod
    def from_edges(cls, edge_index: Tensor, n_source: int, n_target: int) -> "Relation":
        """Build from PyG's (2, E) int64 `edge_index`: row 0 the source, row 1 the target of an edge.

        Raises:
            DataError: the shape is another, or an edge names a node that is not there.
        """
        if edge_index.dim() != 2 or edge_index.shape[0] != 2:
            raise DataError(f"edge_index must have shape (2, E) (got {tuple(edge_index.shape)})")
        for name, ends, size in (("source", edge_index[0], n_source), ("target", edge_index[1], n_target)):
            if len(ends) and not (int(ends.min()) >= 0 and int(ends.max()) < size):
                raise DataError(f"an edge's {name} must lie in [0, {size}) (got {int(ends.min())}, {int(ends.max())})")
        source, target = edge_index[0], edge_index[1]
        by_target = _pattern(target, source, n_target, n_source)
        return cls(n_source, n_target, by_target, _pattern(source, target, n_source, n_target))

    def flip(self) -> "Relation":
        """The same edges, same numbering, in the other direction; shares every tensor."""
        return Relation(self.n_target, self.n_source, self.by_source, self.by_target)

    @property
    def n_edges(self) -> int:
        """E."""
        return len(self.by_target.columns)

    @property
    def degree(self) -> Tensor:
        """(n_target,) int: edges that arrive."""
        return self.by_target.starts.diff()

    def to(self, device: torch.device | str) -> "Relation":
        """The same relation on another device."""
        return Relation(self.n_source, self.n_target, self.by_target.to(device), self.by_source.to(device))


def _pattern(row: Tensor, column: Tensor, n_rows: int, n_columns: int) -> Pattern:
    # 32-bit indices halve the memory and the traffic of the pattern
    narrow = torch.int32 if max(len(row), n_rows, n_columns) < 2**31 else torch.int64
    key = row * n_columns + column
    order = rank = None
    if len(key) > 1 and bool((key[1:] < key[:-1]).any()):
        by_key = torch.argsort(key, stable=True)
        row, column = row[by_key], column[by_key]
        order = by_key.to(narrow)
        rank = torch.empty_like(order).index_copy_(0, by_key, torch.arange(len(key), dtype=narrow, device=key.device))
    starts = torch.zeros(n_rows + 1, dtype=torch.int64, device=row.device)
    starts[1:] = torch.bincount(row, minlength=n_rows).cumsum(0)
    return Pattern(starts.to(narrow), column.to(narrow), order, rank)


def _product(pattern: Pattern, values: Tensor, dense: Tensor) -> Tensor:
    out: Tensor
    if dense.device.type != "cpu":
        return pattern.matrix(values, dense.shape[0]) @ dense
    if dense.dtype == values.dtype == torch.float32:
        out = F.embedding_bag(
            pattern.columns, dense, pattern.starts, mode="sum", per_sample_weights=values, include_last_offset=True
        )
    else:  # embedding_bag would send a message an edge
        out = torch.sparse.mm(pattern.matrix(values, dense.shape[0]), dense, "sum")
    return out


def _sampled(pattern: Pattern, rows: Tensor, columns: Tensor) -> Tensor:
    """(E,) by edge number: the inner product of the vectors at each edge's ends."""
    if len(pattern.columns) > len(rows) * len(columns):  # pairs repeat so often that PyTorch takes it for an error
        row = torch.arange(len(rows), device=rows.device).repeat_interleave(pattern.starts.diff())
        return pattern.restore((rows[row] * columns[pattern.columns]).sum(1))
    at = pattern.matrix(rows.new_zeros(len(pattern.columns)), len(columns))
    torch.sparse.sampled_addmm(at, rows, columns.t(), beta=0.0, out=at)  # in place: the pattern is not copied
    return pattern.restore(at.values())


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, relation: Relation, weight: Tensor, x: Tensor) -> Tensor:
        ctx.relation = relation
        ctx.save_for_backward(weight, x)
        return _product(relation.by_target, relation.by_target.arrange(weight), x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        relation: Relation = ctx.relation
        weight, x = ctx.saved_tensors
        grad = grad.contiguous()
        grad_weight = grad_x = None
        if ctx.needs_input_grad[1]:
            if relation.by_target.rank is None:
                grad_weight = _sampled(relation.by_target, grad, x)
            else:  # edges come by source as a rule: then nothing needs putting back in order
                grad_weight = _sampled(relation.by_source, x, grad)
        if ctx.needs_input_grad[2]:
            grad_x = _product(relation.by_source, relation.by_source.arrange(weight), grad)
        return None, grad_weight, grad_x


def weighted_sum(relation: Relation, weight: Tensor, x: Tensor) -> Tensor:
    """out[t] = Σ over edges (s → t) of weight × x[s].

    Args:
        relation: E edges between S source and T target nodes.
        weight: (E,) by edge number; differentiable.
        x: (S, D) source nodes; differentiable.

    Returns:
        (T, D), at least 32 bits wide; zeros for a node without edges.
    """
    if weight.shape != (relation.n_edges,) or x.shape[0] != relation.n_source:
        raise DataError(
            f"a relation of {relation.n_edges} edges from {relation.n_source} nodes does not take weights "
            f"{tuple(weight.shape)} and nodes {tuple(x.shape)}"
        )
    if relation.n_edges == 0:  # the kernels refuse empty patterns; the sum keeps the gradient's path
        return x.new_zeros(relation.n_target, x.shape[1]) + 0.0 * (weight.sum() + x.sum())
    if x.dtype.itemsize < 4:  # in mixed precision: sums over many edges stay 32 bits wide, as sampled products must be
        x = x.float()
    with torch.autocast(x.device.type, enabled=False):
        out: Tensor = _WeightedSum.apply(  # type: ignore[no-untyped-call]
            relation, weight.to(x.dtype).contiguous(), x.contiguous()
        )
    return out


def aggregate(relation: Relation, weight: Tensor, x: Tensor, how: Aggregation = "mean") -> Tensor:
    """Weighted neighbourhoods, normalised.

    Args:
        relation, weight, x: as for `weighted_sum`; weights positive for "attention".
        how: "sum"; "mean": the sum over the number of edges, so that a strong edge weighs more wherever it is;
            "attention": the sum over the sum of weights, so that only the weights' ratios within a node count.

    Returns:
        (T, D); zeros for a node without edges.
    """
    return over(weighted_sum(relation, weight, x), counted(relation, weight, how), how)


def counted(relation: Relation, weight: Tensor, how: Aggregation = "mean") -> Tensor:
    """(T, 1): what `over` divides a sum by. It adds up over parts of a node's edges, as the sum does."""
    if how == "attention":
        return weighted_sum(relation, weight, weight.new_ones(relation.n_source, 1))
    return relation.degree.float()[:, None]


def over(total: Tensor, count: Tensor, how: Aggregation = "mean") -> Tensor:
    """(T, D) sums and (T, 1) what `counted` says → (T, D) normalised; zeros for a node without edges."""
    if how == "sum":
        return total
    return total / count.clamp(min=1.0 if how == "mean" else 1e-6).to(total.dtype)


class EdgeGates(nn.Module):
    """Scalar gates learned from edge features, all gates of a set of edges in one pass.

    Source: the seed, section 4.3. Differs from it: there a gate is the mean of relu(Linear(12 → 128)), which is one
    hidden layer of width 128 with fixed output weights and a message's worth of floats an edge; here the hidden
    layer is narrow, its output weights are learned, and softplus keeps every gate positive, so that no edge and no
    gradient dies. All gates start near 1, where the layer is a plain mean.

    Shapes:
        (D_edge, E) features, edges last so that each gate is contiguous → (n_gates, E).
    """

    def __init__(self, d_edge: int, n_gates: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(d_edge, hidden)
        self.out = nn.Linear(hidden, n_gates)
        nn.init.normal_(self.out.weight, std=0.1)
        nn.init.constant_(self.out.bias, 0.5413)  # softplus(0.5413) = 1

    def forward(self, features: Tensor) -> Tensor:
        """(D_edge, E) → (n_gates, E), positive."""
        hidden = torch.relu(torch.addmm(self.hidden.bias[:, None], self.hidden.weight, features))
        return F.softplus(torch.addmm(self.out.bias[:, None], self.out.weight, hidden))
