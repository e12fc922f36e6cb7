"""A trained version behind `Scores`: in a protocol's table it stands by the same rules as the simple methods."""

from abc import ABC, abstractmethod
from typing import Final

import numpy as np
import torch
from torch import Tensor

from recsys.constants import SLOT_NOT_SAID
from recsys.models.backbone import Embeddings
from recsys.models.model import RecModel, combined_score
from recsys.models.ranker import Ranker
from recsys.training.evaluation import embed
from recsys.training.inputs import Prepared

_BLOCK: Final = 48  # users whose candidates go through the head at once, as in `evaluation`
_BELOW: Final = 2.0  # a cosine is at least -1 and a score of the head above 0: what was not retrieved stays below


class _Model(ABC):
    """Retrieval over all candidates, the head over the best; what the head did not see follows in retrieval's order."""

    def __init__(self, model: RecModel, prepared: Prepared, *, ranked: int = 400) -> None:
        """Take a model as of a moment.

        Args:
            model: in eval mode.
            prepared: the snapshot as of which everyone is embedded; nothing after it is known.
            ranked: how many candidates of a user go through the head.
        """
        self._ranker, self._prepared, self._ranked = Ranker(model.config, model.heads), prepared, ranked
        self._embeddings: Embeddings = embed(model, prepared)
        data = prepared.snapshot.data
        self._users: Tensor = data["user"].user_id
        self._places: Tensor = data["place"].place_id

    @torch.inference_mode()
    def scores(self, users: Tensor, candidates: Tensor) -> Tensor:
        """See `Scores`; who or what was not known at the moment scores 0 throughout, or below all others."""
        row, known_user = _rows(self._users, users)
        column, known = _rows(self._catalogue(), candidates)
        out = torch.full((len(users), len(candidates)), -2 * _BELOW)
        out[~known_user] = 0.0
        places = column[known]
        for at in torch.split(known_user.nonzero()[:, 0], _BLOCK):
            near = self._retrieve(row[at], places)
            best = near.topk(min(self._ranked, len(places)), dim=1).indices
            block = near - _BELOW
            block.scatter_(1, best, self._rank(row[at], places[best]))
            out[at[:, None], known.nonzero()[:, 0][None]] = block
        return out

    @abstractmethod
    def _catalogue(self) -> Tensor:
        """Ids of all candidates, ascending."""

    @abstractmethod
    def _retrieve(self, users: Tensor, candidates: Tensor) -> Tensor:
        """(B,) and (C,) rows → (B, C) cosines."""

    @abstractmethod
    def _rank(self, users: Tensor, candidates: Tensor) -> Tensor:
        """(B,) and (B, C) rows → (B, C) scores of the head, above 0."""


class ModelPlaces(_Model):
    """Places as a request without slot and categories is answered."""

    def _catalogue(self) -> Tensor:
        return self._places

    def _retrieve(self, users: Tensor, candidates: Tensor) -> Tensor:
        scores: Tensor = self._embeddings.user[users] @ self._embeddings.place[candidates].t()
        return scores

    def _rank(self, users: Tensor, candidates: Tensor) -> Tensor:
        repeated = users[:, None].expand_as(candidates).reshape(-1)
        online = self._prepared.snapshot.place_features(repeated, candidates.reshape(-1))
        logits: Tensor = self._ranker.place_logits(
            self._embeddings.user[users],
            self._embeddings.place[candidates],
            online.reshape(*candidates.shape, -1),
            city=self._prepared.places.city[candidates[:, 0]],
            slot=torch.full_like(users, SLOT_NOT_SAID),
            categories=torch.zeros(len(users), self._ranker.config.n_categories),
        )
        return logits.sigmoid()


class ModelPeople(_Model):
    """People as a request without a place, tags and slot is answered."""

    def _catalogue(self) -> Tensor:
        return self._users

    def _retrieve(self, users: Tensor, candidates: Tensor) -> Tensor:
        scores: Tensor = self._embeddings.people[users] @ self._embeddings.people[candidates].t()
        return scores

    def _rank(self, users: Tensor, candidates: Tensor) -> Tensor:
        config = self._ranker.config
        repeated = users[:, None].expand_as(candidates).reshape(-1)
        online = self._prepared.snapshot.people_features(repeated, candidates.reshape(-1))
        compat, attend = self._ranker.people_logits(
            self._embeddings.people[users],
            self._embeddings.people[candidates],
            online.reshape(*candidates.shape, -1),
            city=self._prepared.users.city[users],
            slot=torch.full_like(users, SLOT_NOT_SAID),
            place=torch.zeros(len(users), config.d_model),
            tags=torch.zeros(len(users), config.n_tags),
        )
        scores: Tensor = combined_score(compat.sigmoid(), attend.sigmoid(), config.alpha)
        return scores


def _rows(known: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of numbers among ascending known ones, and which are known at all."""
    ids, wanted = np.asarray(known), np.asarray(numbers)
    at = np.minimum(np.searchsorted(ids, wanted), max(len(ids) - 1, 0))
    return torch.from_numpy(at), torch.from_numpy(ids[at] == wanted)
