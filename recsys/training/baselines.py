"""What a method is to the evaluations, and the simple methods over a snapshot that a model must beat.

Those over arrays alone, for the protocols of `training/protocols.py`, are in `place_baselines` and `people_baselines`.
"""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from recsys.aggregates import PLACE_ACTIVITY
from recsys.training.inputs import Prepared

_POSITIVES = PLACE_ACTIVITY.index("positives_28d")


class Scores(Protocol):
    """Scores candidates (places or people) for users: a baseline, or a model behind the same two arguments."""

    def scores(self, users: Tensor, candidates: Tensor, /) -> Tensor:
        """(B,) users and (C,) candidates, int64 numbers of the data → (B, C) finite floats, higher is better."""
        ...


class Baseline(Scores, Protocol):
    """A named method over a snapshot. Equal scores must be broken at random, not by place number."""

    name: str


class Blend:
    """A weighted sum of methods; each stays on its own scale."""

    def __init__(self, *parts: tuple[float, Scores]) -> None:
        self._parts = parts

    def scores(self, users: Tensor, candidates: Tensor) -> Tensor:
        """See `Scores`."""
        return torch.stack([weight * part.scores(users, candidates) for weight, part in self._parts]).sum(dim=0)


def candidate_columns(block: Any, candidates: Tensor) -> Tensor:
    """(B, N) sparse scores of everything → (B, C) float32 of the candidates.

    Rounding to float32 makes sums of the same terms in another order equal again, so that ties stay ties.
    """
    return torch.from_numpy(block[:, candidates.numpy()].toarray().astype(np.float32))


class Random:
    """Every order is as good as any other."""

    name = "random"

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def scores(self, users: Tensor, places: Tensor) -> Tensor:
        """See `Baseline`."""
        return torch.rand(len(users), len(places), generator=self._generator)


class Popularity:
    """Positives in the 28 days before the cut; ties by a fixed shuffle of the places."""

    name = "popularity"

    def __init__(self, prepared: Prepared, seed: int) -> None:
        positives = prepared.snapshot.place_online[:, _POSITIVES].double()
        shuffle = torch.randperm(len(positives), generator=torch.Generator().manual_seed(seed)).double()
        self.score = positives + 1e-9 * shuffle / max(len(positives), 1)

    def scores(self, users: Tensor, places: Tensor) -> Tensor:
        """See `Baseline`."""
        return self.score[places].expand(len(users), -1)


class OwnHistory:
    """How often the user was there before the cut; popularity among places with equal counts."""

    name = "own_history"

    def __init__(self, prepared: Prepared, seed: int) -> None:
        self._popularity = Popularity(prepared, seed).score
        self._counts = prepared.memory.counts

    def scores(self, users: Tensor, places: Tensor) -> Tensor:
        """See `Baseline`."""
        counts = torch.from_numpy(self._counts[users.numpy()][:, places.numpy()].toarray()).double()
        # a visit outweighs any popularity, which lies in [0, 1]
        out: Tensor = self._popularity[places] + 2.0 * counts
        return out
