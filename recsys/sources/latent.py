"""What many visitors of a city have in common, in a few numbers a place: what a pair of places is too rare to tell."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import svds

from recsys.sources.als import als_factors
from recsys.sources.rows import Floats, Ints, Row

TASTE_WIDTHS: Final = (16, 64, 128)  # main directions: few say what is common to many, more what is rare
TASTES: Final = TASTE_WIDTHS[-1]
FACTORS: Final = 32  # of least squares
WIDTH: Final = TASTES + FACTORS
LATENT_SIGNALS: Final = (*(f"taste_{width}" for width in TASTE_WIDTHS), "als")
_BEGINS: Final = (0, *TASTE_WIDTHS)  # of the columns that a signal adds to the one before; those of ALS are apart
_ALPHA, _REGULARIZATION, _ITERATIONS = 10.0, 30.0, 15  # of least squares, see `als_factors`


@dataclass(frozen=True)
class Latent:
    """The C places of a city.

    Attributes:
        rows: (C, WIDTH) float32, of each place its share in the main directions, the strongest first, and its factors.
        weights: (C, len(LATENT_SIGNALS)) float32, by what a signal's product counts.
        gram: (FACTORS, FACTORS) float64, of the factors, λ on the diagonal.
    """

    rows: Floats
    weights: Floats
    gram: np.ndarray

    @classmethod
    def fit(cls, seen: csr_array, visitors: Ints) -> "Latent":
        """Learn from visits: CSR (N, C), 1 where a user was, and (C,) how many users were there."""
        _, factors = als_factors(
            seen, factors=FACTORS, regularization=_REGULARIZATION, alpha=_ALPHA, iterations=_ITERATIONS, exact=False
        )
        return cls.of(np.concatenate([_tastes(seen, visitors), factors], axis=1), visitors)

    @classmethod
    def of(cls, rows: Floats, visitors: Ints) -> "Latent":
        """From what was learned before."""
        weights = np.ones((len(rows), len(LATENT_SIGNALS)), dtype=np.float32)
        weights[:, : len(TASTE_WIDTHS)] = visitors[:, None]
        factors = rows[:, TASTES:].astype(np.float64)
        return cls(rows, weights, factors.T @ factors + _REGULARIZATION * np.eye(FACTORS))

    def ask(self, seen: csr_array | Row) -> Floats:
        """What visits (B, C) come to: (B, WIDTH), by directions and by factors.

        By directions they are a share of a user's visits, or who was at many places would have more of every taste. The
        factors are solved for given the places', as an iteration of least squares does: nobody has to be known before.
        """
        out: Floats = np.asarray(seen @ self.rows, dtype=np.float32)
        out /= np.sqrt(np.maximum(np.diff(seen.indptr), 1)).astype(np.float32)[:, None]
        for row in range(len(out)):
            there = self.rows[seen.indices[seen.indptr[row] : seen.indptr[row + 1]], TASTES:].astype(np.float64)
            out[row, TASTES:] = np.linalg.solve(
                self.gram + _ALPHA * there.T @ there, (1.0 + _ALPHA) * there.sum(axis=0)
            )
        return out

    def signals(self, mine: Floats, places: Ints) -> Floats:
        """What `ask` gave, of (B, n) positions: (B, n, len(LATENT_SIGNALS)) float32."""
        # a sum by place, not a product of matrices: it is the same for one row and for many
        said = np.add.reduceat(self.rows[places] * mine[:, None], _BEGINS, axis=2)
        said[..., :-1] = said[..., :-1].cumsum(axis=2)
        said *= self.weights[places]
        out: Floats = said
        return out


def _tastes(seen: csr_array, visitors: Ints) -> Floats:
    """The main directions of who was where.

    The ideal low-pass filter of "How powerful is graph convolution for recommendation?" (Shen et al., CIKM 2021), by
    itself: with V the first right singular vectors of the visits over the roots of both sides' numbers, and D the
    places' visitors, a user's visits x become x D^-1/2 V Vᵀ D^1/2.

    Args:
        seen: CSR (N, C), 1 where a user was. visitors: (C,).

    Returns:
        F = D^-1/2 V, (C, TASTES) float32, the strongest direction first: what x becomes is (x F) Fᵀ D. Columns that a
        small city lacks are 0.
    """
    out = np.zeros((len(visitors), TASTES), dtype=np.float32)
    rows, there = np.diff(seen.indptr) > 0, np.flatnonzero(visitors > 0)
    x = csr_array(seen[rows][:, there], dtype=np.float64)
    k = min(TASTES, min(x.shape) - 1)
    if k < 1:
        return out
    scale = 1 / np.sqrt(visitors[there])
    x = csr_array(diags_array(1 / np.sqrt(np.diff(x.indptr))) @ x @ diags_array(scale))
    # begins at a vector of its own, so the same visits always make the same factors
    _, strength, directions = svds(x, k=k, v0=np.ones(min(x.shape)))
    out[there, :k] = directions[np.argsort(-strength, kind="stable")].T * scale[:, None]
    return out
