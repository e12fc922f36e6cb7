"""Simple methods for people over the friendships and visits before the cut: what a model must beat.

`graph` is a CSR array (n_users, n_users), symmetric, 1 where two users are friends before the cut, without self-loops;
`visits` (n_users, n_places) counts visits, all of them before the new friendships that are to be found.
"""

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array
from torch import Tensor

from recsys.training.baselines import candidate_columns
from recsys.training.place_baselines import binary


class Degree:
    """How many friends the candidate has."""

    def __init__(self, graph: csr_array) -> None:
        self._degree = torch.from_numpy(np.diff(graph.indptr).astype(np.float64))

    def scores(self, users: Tensor, candidates: Tensor) -> Tensor:
        """See `Scores`."""
        return self._degree[candidates].expand(len(users), -1)


class CommonNeighbours:
    """How many friends user and candidate share.

    Liben-Nowell & Kleinberg, "The link-prediction problem for social networks", CIKM 2003.
    """

    def __init__(self, graph: csr_array) -> None:
        self._graph = self._weighted = graph

    def scores(self, users: Tensor, candidates: Tensor) -> Tensor:
        """See `Scores`."""
        return candidate_columns(self._weighted[users.numpy()] @ self._graph, candidates)


class AdamicAdar(CommonNeighbours):
    """The friends that user and candidate share, each counting 1 / log(its number of friends).

    Adamic & Adar, "Friends and neighbors on the Web", Social Networks 25, 2003.
    """

    def __init__(self, graph: csr_array) -> None:
        super().__init__(graph)
        # who is shared by two has two friends or more: the lower bound only keeps the others finite
        self._weighted = graph @ diags_array(1.0 / np.log(np.maximum(np.diff(graph.indptr), 2)))


class CoVisits:
    """Cosine of the places that two users visited, a place weighted by its rarity.

    Binary term frequency times log(users with a visit / visitors of the place): Salton & Buckley, "Term-weighting
    approaches in automatic text retrieval", IP&M 1988, users as documents and places as terms.
    """

    def __init__(self, visits: csr_array) -> None:
        present = binary(visits)
        n_active = int((np.diff(visits.indptr) > 0).sum())
        visitors = np.bincount(visits.indices, minlength=visits.shape[1])
        weighted = present @ diags_array(np.log(max(n_active, 1) / np.maximum(visitors, 1)))
        length = np.sqrt(weighted.multiply(weighted).sum(axis=1))
        # no visit, or only visits to where everyone goes: similar to nobody
        scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
        self._unit = (diags_array(scale) @ weighted).tocsr()
        self._unit_t = self._unit.T.tocsr()

    def scores(self, users: Tensor, candidates: Tensor) -> Tensor:
        """See `Scores`."""
        return candidate_columns(self._unit[users.numpy()] @ self._unit_t, candidates)
