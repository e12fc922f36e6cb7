"""LightGCN: the sparse layer of the model over who was where, and of a node nothing but a vector of its own.

It is the graph network without features, edge features, maps to learn, heads and sources: in the table of a protocol it
says what all that is worth.
"""

from typing import Final

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from recsys.errors import ConfigError
from recsys.models.losses import bpr_loss
from recsys.models.sparse import Relation, weighted_sum
from recsys.training.measure import measure
from recsys.training.objective import rows
from recsys.training.protocols import PlacesTask, places_task

EPOCHS: Final = (5, 10, 20, 40)  # one of these, by the last tenth of train
_STEPS: Final = 4  # an epoch; each passes the whole graph, however few pairs it supervises


class LightGCN(nn.Module):
    """Vectors of users and places, smoothed over who was where; their inner product is the score.

    He et al., "LightGCN: simplifying and powering graph convolution network for recommendation", SIGIR 2020: a layer is
    the sum over a node's neighbours of their vectors over sqrt(degree × degree) (eq. 3), the result the mean of all
    layers (eq. 4), learned by BPR with a penalty on the first layer's vectors (eq. 15). Differs from it in that a step
    has a quarter of the pairs, at a rate to match.

    Args:
        visits: CSR (n_users, n_places), how often in train; only whether counts.
        width: of the vectors.
        layers: how often they are smoothed.
        learning_rate: Adam's.
        penalty: on the squared length of the vectors that a pair begins with.
        seed: of everything random.

    Raises:
        ConfigError: a number out of range.
    """

    def __init__(
        self,
        visits: csr_array,
        *,
        width: int = 64,
        layers: int = 3,
        learning_rate: float = 0.02,
        penalty: float = 3e-3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if width < 1 or layers < 1:
            raise ConfigError(f"width and layers of LightGCN must be at least 1 (got {width} and {layers})")
        user, place = (torch.from_numpy(ends.astype(np.int64)) for ends in visits.nonzero())
        self._ends, self._layers, self._penalty = (user, place), layers, penalty
        self._to_place = Relation.from_edges(torch.stack([user, place]), *visits.shape)
        self._to_user = self._to_place.flip()
        degrees = self._to_user.degree, self._to_place.degree
        self._weight = (degrees[0][user].float() * degrees[1][place].float()).rsqrt()
        self._seen = degrees[1].nonzero()[:, 0]
        self._generator = torch.Generator().manual_seed(seed)
        self.user, self.place = (nn.Parameter(self._drawn(degree > 0, width)) for degree in degrees)
        self._optimizer = torch.optim.Adam(self.parameters(), lr=learning_rate)

    def _drawn(self, known: Tensor, width: int) -> Tensor:
        """(n,) bool → (n, width) to begin with. Who was nowhere, and where nobody was, stay at zero and score 0."""
        out = torch.zeros(len(known), width)
        out[known] = 0.1 * torch.randn(int(known.sum()), width, generator=self._generator)
        return out

    def learn(self, epochs: int) -> "LightGCN":
        """Go on for so many rounds through all pairs."""
        user, place = self._ends
        for _ in range(epochs):
            order = torch.randperm(len(user), generator=self._generator)
            for chosen in order.tensor_split(_STEPS):
                u, positive = user[chosen], place[chosen]
                negative = self._seen[torch.randint(len(self._seen), (len(chosen),), generator=self._generator)]
                users, places = self()
                query = rows(users, u)
                above, below = ((query * rows(places, p)).sum(dim=1) for p in (positive, negative))
                lengths = rows(self.user, u).square().sum() + rows(self.place, positive).square().sum()
                loss = bpr_loss(above, below) + self._penalty * lengths / max(len(chosen), 1)
                self._optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                self._optimizer.step()
        return self

    def forward(self) -> tuple[Tensor, Tensor]:
        """(n_users, width) and (n_places, width)."""
        user: Tensor = self.user
        place: Tensor = self.place
        users, places = [user], [place]
        for _ in range(self._layers):
            user, place = (
                weighted_sum(self._to_user, self._weight, place),
                weighted_sum(self._to_place, self._weight, user),
            )
            users.append(user)
            places.append(place)
        return torch.stack(users).mean(dim=0), torch.stack(places).mean(dim=0)

    @torch.no_grad()
    def scores(self, users: Tensor, candidates: Tensor) -> Tensor:
        """See `Scores`. Users and places without a visit score 0."""
        user, place = self()
        return user[users] @ place[candidates].t()  # type: ignore[no-any-return]


def chosen_lightgcn(task: PlacesTask, *, seed: int = 0) -> LightGCN:
    """LightGCN after one of EPOCHS: as many as foresee the last tenth of train ever better, the fewest if none do."""
    visits = task.visits
    part = places_task(
        task.train_user, task.train_place, task.train_moment, protocol=task.protocol, quantile=0.9,
        n_users=visits.shape[0], n_places=visits.shape[1],
    )  # fmt: skip
    best, reached = EPOCHS[0], -1.0
    if len(part.users):
        trial, done = LightGCN(part.visits, seed=seed), 0
        for epochs in EPOCHS:
            ndcg = float(measure(part, trial.learn(epochs - done)).ndcg.mean())
            if ndcg <= reached:
                break
            best, reached, done = epochs, ndcg, epochs
    return LightGCN(visits, seed=seed).learn(best)
