"""What is learned of one city's places from who was where: which go together, and which kinds people like."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array, diags_array

from recsys.sources.rows import Floats, Ints, matrix, row_of, strongest, times

_NEIGHBOURS: Final = 200  # of a place, by each similarity
_PENALTY: Final = 500.0  # of EASE
_EASE_LIMIT: Final = 12_000  # side of the matrix to invert: 0.6 GB in float32, and two more beside it
_SMOOTH: Final = 5.0  # visits at the city's shares that what a user went to is mixed with


@dataclass(frozen=True)
class Kinds:
    """What the C places of a city are, by categories or by tags, K of them.

    Attributes:
        rows: CSR (C, K), each place's kinds, which add up to 1. shares: (K,) of the city's visitors.
        usual: (C,) log of how well a place fits the whole city.
    """

    rows: csr_array
    shares: Floats
    usual: Floats

    @classmethod
    def of(cls, rows: csr_array, visitors: Ints) -> "Kinds":
        """Of places that so many users had been at."""
        weight = visitors.astype(np.float32) @ rows + 1e-6
        shares = (weight / weight.sum()).astype(np.float32)
        return cls(rows, shares, np.log(rows @ shares + 1e-4))

    def fits(self, taste: Floats, places: Ints) -> Floats:
        """(B, K) visits by kind and (B, n) positions → (B, n) log of how well these fit them.

        Few visits are mixed with the city's.
        """
        mixed = (taste + _SMOOTH * self.shares) / (taste.sum(axis=1, keepdims=True) + _SMOOTH)
        out: Floats = np.log(np.take_along_axis((self.rows @ mixed.T).T, places, axis=1) + 1e-4)
        return out


def shares_of(kinds: npt.NDArray[np.bool_]) -> csr_array:
    """(M, K) multi-hot → CSR whose rows add up to 1; one of no kind stays empty."""
    rows = csr_array(kinds.astype(np.float32))
    return csr_array(diags_array(1 / np.maximum(rows.sum(axis=1), 1).astype(np.float32)) @ rows)


def item_models(seen: csr_array, visitors: Ints) -> tuple[csr_array, csr_array]:
    """Cosine of the visitors of two places, and EASE's weights: of each place the largest. (C, C) each."""
    n = len(visitors)
    there = np.flatnonzero(visitors > 0)
    if len(there) < 2:
        return csr_array((n, n), dtype=np.float32), csr_array((n, n), dtype=np.float32)
    x = csr_array(seen[:, there])
    x = csr_array(x[np.diff(x.indptr) > 0])
    across, scale = csr_array(x.T), (1.0 / np.sqrt(visitors[there])).astype(np.float32)
    # whole numbers of common visitors, so exact; both models are made of them
    common = times(across, x) if len(there) <= _EASE_LIMIT else None

    def cosine(rows: slice) -> Floats:
        counts = times(csr_array(across[rows]), x) if common is None else common[rows]
        out: Floats = counts * scale[rows, None] * scale
        return out

    similar = strongest(cosine, len(there), _NEIGHBOURS)
    ease = csr_array(similar.shape)
    if min(x.shape) <= _EASE_LIMIT:
        ease = strongest(_ease(x, across, common).__getitem__, len(there), _NEIGHBOURS)
    return tuple(matrix(m.data, (there[row_of(m)], there[m.indices]), (n, n)) for m in (similar, ease))


def _ease(x: csr_array, across: csr_array, common: Floats | None) -> Floats:
    """EASE's weights (Steck, WWW 2019), (M, M) float32 with zero diagonal, of binary visits.

    From the users' side where they are fewer: P = (I - XᵀKX) / λ with K = (XXᵀ + λI)⁻¹.

    Args:
        x: (U, M). across: (M, U), the same. common: XᵀX where there are no more places than users; used up.
    """
    by_user = x.shape[0] < x.shape[1]
    gram = torch.from_numpy(times(x, across) if by_user or common is None else common)
    gram.diagonal().add_(_PENALTY)
    # positive definite: by Cholesky factors in a third of the time of a general inverse, and rounded less
    inverse: Floats = torch.cholesky_inverse(torch.linalg.cholesky(gram)).numpy()
    if by_user:
        # products of few visits with a dense matrix: a twentieth of the time of dense ones
        inverse = across @ np.ascontiguousarray((across @ inverse).T) / -_PENALTY
        inverse[np.diag_indices_from(inverse)] += 1 / _PENALTY
    weights: Floats = inverse / -inverse.diagonal()[None]
    np.fill_diagonal(weights, 0)
    return weights
