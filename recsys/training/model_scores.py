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
from recsys.training.evaluation import embed, place_scores
from recsys.training.inputs import CityCatalogue, Prepared

_BLOCK: Final = 48  # users whose candidates go through the head at once, as in `evaluation`
_BELOW: Final = 2.0  # a cosine is at least -1 and a score of the head above 0: what was not retrieved stays below


class _Model(ABC):
    """Candidates in the city, the head over them; what the head did not see follows in the order of the vectors."""

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
        if bool(known.any()):
            city = int(self._city().city[column[known][0]])
            at = self._city().position[column[known]]
            for block in torch.split(known_user.nonzero()[:, 0], _BLOCK):
                out[block[:, None], known.nonzero()[:, 0][None]] = self._in_city(row[block], city)[:, at]
        return out

    @abstractmethod
    def _catalogue(self) -> Tensor:
        """Ids of all candidates, ascending."""

    @abstractmethod
    def _city(self) -> CityCatalogue:
        """Candidates by city."""

    @abstractmethod
    def _in_city(self, users: Tensor, city: int) -> Tensor:
        """(B,) rows → (B, C) scores of all of a city's candidates: the head's in (0, 1), below 0 for the others."""


class ModelPlaces(_Model):
    """Places as a request without slot and categories is answered."""

    def _catalogue(self) -> Tensor:
        return self._places

    def _city(self) -> CityCatalogue:
        return self._prepared.places

    def _in_city(self, users: Tensor, city: int) -> Tensor:
        members = self._prepared.places.of(city)
        scores: Tensor = self._embeddings.user[users] @ self._embeddings.place[members].t() - _BELOW
        position, logits = place_scores(self._ranker, self._embeddings, self._prepared, users, city, self._ranked)
        return scores.scatter_(1, position, logits.sigmoid())


class ModelPeople(_Model):
    """People as a request without a place, tags and slot is answered, but for that the head reads everybody."""

    def _catalogue(self) -> Tensor:
        return self._users

    def _city(self) -> CityCatalogue:
        return self._prepared.users

    def _in_city(self, users: Tensor, city: int) -> Tensor:
        config, sources = self._ranker.config, self._prepared.people_sources
        members = self._prepared.users.of(city)
        said = sources.ask(users.numpy(), city)
        everybody = np.broadcast_to(np.arange(len(members)), (len(users), len(members)))
        signals = torch.from_numpy(sources.signals(said, everybody))
        peers = members.expand(len(users), -1)
        repeated = users[:, None].expand_as(peers)
        online = self._prepared.snapshot.people_features(repeated.reshape(-1), peers.reshape(-1))
        compat, attend = self._ranker.people_logits(
            self._embeddings.people[users],
            self._embeddings.people[members][None],
            torch.cat([online.reshape(*peers.shape, -1), signals], dim=2),
            city=torch.full_like(users, city),
            slot=torch.full_like(users, SLOT_NOT_SAID),
            place=torch.zeros(len(users), config.d_model),
            tags=torch.zeros(len(users), config.n_tags),
        )
        return combined_score(compat.sigmoid(), attend.sigmoid(), config.alpha)


def _rows(known: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of numbers among ascending known ones, and which are known at all."""
    ids, wanted = np.asarray(known), np.asarray(numbers)
    at = np.minimum(np.searchsorted(ids, wanted), max(len(ids) - 1, 0))
    return torch.from_numpy(at), torch.from_numpy(ids[at] == wanted)
