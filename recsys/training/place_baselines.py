"""Simple methods for places over one matrix of visits: what a model must beat on `protocols.places_task`.

`visits` is a CSR array (n_users, n_places) of how often each user was at each place **in train**: a method never sees
more, so nothing after the cut can reach a score. Numbers of users and places are those of the data; a place without a
visit is an empty column and costs nothing.
"""

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array
from torch import Tensor

from recsys.errors import ConfigError
from recsys.training.baselines import candidate_columns

EASE_LIMIT = 15_000  # a float32 matrix of this side is 0.9 GB, and inverting it holds three


def binary(visits: csr_array) -> csr_array:
    """Whether instead of how often, float64."""
    out = csr_array(visits, dtype=np.float64, copy=True)
    out.data[:] = 1.0
    return out


class AnyOrder:
    """The same score for every candidate: `measure` gives it exactly what a random order gets on average."""

    def scores(self, users: Tensor, candidates: Tensor) -> Tensor:
        """See `Scores`."""
        return torch.zeros(len(users), len(candidates))


class PopularPlaces:
    """The number of distinct visitors: a regular counts once."""

    def __init__(self, visits: csr_array) -> None:
        self._visitors = torch.from_numpy(np.bincount(visits.indices, minlength=visits.shape[1]).astype(np.float64))

    def scores(self, users: Tensor, candidates: Tensor) -> Tensor:
        """See `Scores`."""
        return self._visitors[candidates].expand(len(users), -1)


class OwnVisits:
    """How often the user was there; among equal counts, and so among the places of no visit, popularity."""

    def __init__(self, visits: csr_array) -> None:
        self._visits, self._popular = visits, PopularPlaces(visits)
        # above any number of visitors: one visit more outweighs all popularity
        self._step = int(np.bincount(visits.indices, minlength=1).max()) + 1

    def scores(self, users: Tensor, candidates: Tensor) -> Tensor:
        """See `Scores`. Whole numbers in float64: exact."""
        own = torch.from_numpy(self._visits[users.numpy()][:, candidates.numpy()].toarray().astype(np.float64))
        return self._step * own + self._popular.scores(users, candidates)


class ItemKNN:
    """Cosine similarity between places' sets of visitors, summed over the places where the user was.

    Sarwar, Karypis, Konstan, Riedl, "Item-based collaborative filtering recommendation algorithms", WWW 2001, with
    cosine similarity as in Deshpande & Karypis, "Item-based top-N recommendation algorithms", TOIS 2004. Differs from
    them in that all neighbours count, not the nearest k. With X the binary visits and X̂ its columns at unit length,
    the scores are X X̂ᵀ X̂ less a place's similarity to itself; the places × places matrix is never built.
    """

    def __init__(self, visits: csr_array) -> None:
        self._binary = binary(visits)
        visitors = np.bincount(visits.indices, minlength=visits.shape[1])
        self._unit = self._binary @ diags_array(1.0 / np.sqrt(np.maximum(visitors, 1)))
        self._unit_t = self._unit.T.tocsr()

    def scores(self, users: Tensor, candidates: Tensor) -> Tensor:
        """See `Scores`."""
        mine = self._binary[users.numpy()]
        # cos(i, j) over the user's i: (1 at i) · X̂ᵀ X̂
        return candidate_columns((mine @ self._unit_t) @ self._unit - mine, candidates)


class Ease:
    """EASE: the linear model x → xB of visits on visits, with zero diagonal, in closed form.

    Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019, eq. 8: P = (XᵀX + λI)⁻¹,
    B_ij = -P_ij / P_jj. So xB = x - (xP) / diag P. Where there are fewer users than places the same comes from the
    users' side, by P = (I - XᵀKX) / λ and XP = KX with K = (XXᵀ + λI)⁻¹: the smaller matrix is inverted.

    Args:
        visits: see the module; binary is what counts.
        penalty: λ.

    Raises:
        ConfigError: both places with a visit and users with a visit are above `EASE_LIMIT`, or λ is not positive.
    """

    def __init__(self, visits: csr_array, *, penalty: float = 500.0) -> None:
        if not penalty > 0:
            raise ConfigError(f"penalty of EASE must be above 0 (got {penalty})")
        n_users, n_places = _sides(visits)
        if not self.fits(visits):
            raise ConfigError(
                f"EASE inverts a matrix over places or over users, whichever are fewer: at most {EASE_LIMIT:,} "
                f"(got {n_places:,} places and {n_users:,} users with a visit)"
            )
        # numbers → positions in the matrix without its empty rows and columns
        active, self._row = _compact(np.diff(visits.indptr) > 0)
        seen, self._column = _compact(np.bincount(visits.indices, minlength=visits.shape[1]) > 0)
        self._binary = binary(visits)[active][:, seen].astype(np.float32)
        self._by_user = n_users < n_places
        x = self._binary
        gram = torch.from_numpy((x @ x.T if self._by_user else x.T @ x).toarray())
        gram.diagonal().add_(penalty)
        self._inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram)).numpy() if len(gram) else gram.numpy()
        if self._by_user:
            explained = np.zeros(n_places)
            for start in range(0, n_users, 1024):
                part = x[start : start + 1024]
                explained += part.multiply(self._inverse[start : start + 1024] @ x).sum(axis=0)
            self._diagonal = ((1.0 - explained) / penalty).astype(np.float32)
        else:
            self._diagonal = self._inverse.diagonal()

    @staticmethod
    def fits(visits: csr_array) -> bool:
        """Whether the matrix to invert is within the limit."""
        return min(_sides(visits)) <= EASE_LIMIT

    def scores(self, users: Tensor, candidates: Tensor) -> Tensor:
        """See `Scores`. Users and places without a visit score 0."""
        row, column = self._row[users.numpy()], self._column[candidates.numpy()]
        out = np.zeros((len(row), len(column)), dtype=np.float32)
        if len(self._inverse):
            mine = self._binary[row]
            product = self._inverse[row] @ self._binary if self._by_user else mine @ self._inverse
            scored = mine.toarray() - product / self._diagonal
            known_row, known_column = row >= 0, column >= 0
            out[np.ix_(known_row, known_column)] = scored[known_row][:, column[known_column]]
        return torch.from_numpy(out)


class FriendsVisited:
    """How many of the user's friends were there.

    Args:
        visits: see the module.
        graph: CSR (n_users, n_users), 1 where two users are friends.
    """

    def __init__(self, visits: csr_array, graph: csr_array) -> None:
        self._binary, self._graph = binary(visits), graph

    def scores(self, users: Tensor, candidates: Tensor) -> Tensor:
        """See `Scores`."""
        return candidate_columns(self._graph[users.numpy()] @ self._binary, candidates)


def _sides(visits: csr_array) -> tuple[int, int]:
    """How many users and how many places have a visit."""
    return int((np.diff(visits.indptr) > 0).sum()), len(np.unique(visits.indices))


def _compact(keep: Any) -> tuple[Any, Any]:
    """(N,) bool → the (K,) kept numbers, and (N,) their positions, -1 where not kept."""
    kept = np.flatnonzero(keep)
    position = np.full(len(keep), -1)
    position[kept] = np.arange(len(kept))
    return kept, position
