"""Scoring of candidates by the trained heads: one implementation, used by serving and by evaluation.

Numpy in, numpy out for serving; no graph, no torch_geometric.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.artifacts import Artifact
from recsys.constants import N_TIME_SLOTS
from recsys.errors import ArtifactError, ConfigError, DataError
from recsys.models.config import ModelConfig
from recsys.models.heads import D_PEOPLE_INPUT, D_PLACE_INPUT, Heads
from recsys.models.model import combined_score
from recsys.stages import stage

Floats = npt.NDArray[np.float32]
MODEL = "model"  # the name of the model's tensors in an artifact
_HEADS = "heads."


class Ranker:
    """The heads and context encoders of one model version, in eval mode. Safe to share between threads.

    Attributes:
        config: sizes of the model.
    """

    def __init__(self, config: ModelConfig, heads: Heads) -> None:
        self.config = config
        self._heads = heads.eval()

    @property
    def reads_signals(self) -> bool:
        """Whether the friend head looks at what the sources say of a pair."""
        return self._heads.friend.reads_signals

    @classmethod
    def load(cls, artifact: Artifact) -> "Ranker":
        """Read from a model version.

        Raises:
            ArtifactError: the version's config or tensors do not fit this code.
        """
        try:
            config = ModelConfig.from_dict(artifact.manifest["config"]["model"])
        except (KeyError, TypeError, ConfigError) as error:
            raise ArtifactError(f"version {artifact.version} has no usable model config (got {error!r})") from error
        tensors = artifact.tensors(MODEL)
        heads = Heads(config)
        try:
            heads.load_state_dict({k.removeprefix(_HEADS): v for k, v in tensors.items() if k.startswith(_HEADS)})
        except RuntimeError as error:
            raise ArtifactError(f"version {artifact.version} does not fit this code's heads: {error}") from error
        return cls(config, heads)

    # ------------------------------------------------------------------------------------------------------- batches
    @torch.inference_mode()
    def place_logits(
        self, users: Tensor, places: Tensor, inputs: Tensor, *, city: Tensor, slot: Tensor, categories: Tensor
    ) -> Tensor:
        """Logits of C candidates for each of B users.

        Args:
            users: (B, D). places: (B, C, D). inputs: (B, C, D_PLACE_INPUT).
            city, slot: (B,) int64. categories: (B, 6) multi-hot.

        Returns:
            (B, C) float32.
        """
        context = self._heads.place_context(city, slot, categories)
        out: Tensor = self._heads.place(users[:, None], places, context[:, None], inputs)
        return out

    @torch.inference_mode()
    def people_logits(
        self, users: Tensor, peers: Tensor, inputs: Tensor, *, city: Tensor, slot: Tensor, place: Tensor, tags: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compatibility and attendance logits of C candidates for each of B users.

        Args:
            users: (B, D). peers: (B, C, D). inputs: (B, C, D_PEOPLE_INPUT).
            city, slot: (B,) int64. place: (B, D), zeros for none. tags: (B, 100) multi-hot.

        Returns:
            Twice (B, C) float32.
        """
        context = self._heads.friend_context(city, slot, place, tags)
        compat, attend = self._heads.friend(users[:, None], peers, context[:, None], inputs)
        return compat, attend

    # ------------------------------------------------------------------------------------------------------- requests
    @stage("score")
    def score_places(
        self, user: Floats, places: Floats, online: Floats, *, city_id: int, slot: int, categories: Sequence[int] = ()
    ) -> Floats:
        """Relevance of candidate places for one request.

        Args:
            user: (D,) the user's `embedding`.
            places: (C, D) the candidates' vectors.
            online: (C, D_PLACE_INPUT).
            city_id: city of the request.
            slot: time slot, SLOT_NOT_SAID when the request has none.
            categories: indices of desired coarse categories; empty: none said.

        Returns:
            (C,) float32 in (0, 1).

        Raises:
            DataError: a shape or an index does not fit, or a feature is not finite.
        """
        self._check(user, places, online, D_PLACE_INPUT, city_id, slot)
        logits = self.place_logits(
            _batch(user),
            _batch(places),
            _batch(online),
            city=torch.tensor([city_id]),
            slot=torch.tensor([slot]),
            categories=_multi_hot(categories, self.config.n_categories, "category"),
        )
        return _probabilities(logits)

    @stage("score")
    def score_people(
        self,
        user: Floats,
        peers: Floats,
        inputs: Floats,
        *,
        city_id: int,
        slot: int,
        place: Floats | None = None,
        tags: Sequence[int] = (),
    ) -> tuple[Floats, Floats]:
        """Compatibility and attendance probabilities of candidate people for one request.

        Args:
            user: (D,) the user's `people` vector: the friend head reads what people retrieval returns.
            peers: (C, D) the candidates' `people` vectors.
            inputs: (C, D_PEOPLE_INPUT).
            city_id, slot: as for places.
            place: (D,) `embedding` of the place to go to; None: not said.
            tags: indices of the activity's fine tags.

        Returns:
            (C,) and (C,) float32 in (0, 1).

        Raises:
            DataError: a shape or an index does not fit, or a feature is not finite.
        """
        self._check(user, peers, inputs, D_PEOPLE_INPUT, city_id, slot)
        target = np.zeros(self.config.d_model, dtype=np.float32) if place is None else place
        if target.shape != (self.config.d_model,):
            raise DataError(f"place must have shape ({self.config.d_model},) (got {target.shape})")
        compat, attend = self.people_logits(
            _batch(user),
            _batch(peers),
            _batch(inputs),
            city=torch.tensor([city_id]),
            slot=torch.tensor([slot]),
            place=_batch(target),
            tags=_multi_hot(tags, self.config.n_tags, "tag"),
        )
        return _probabilities(compat), _probabilities(attend)

    def combine(self, compat: Floats, attend: Floats) -> Floats:
        """(C,) and (C,) probabilities → (C,) combined score."""
        out: Floats = combined_score(torch.from_numpy(compat), torch.from_numpy(attend), self.config.alpha).numpy()
        return out

    def _check(self, user: Floats, others: Floats, online: Floats, d_online: int, city_id: int, slot: int) -> None:
        d, n = self.config.d_model, len(others)
        for name, array, shape in (
            ("user", user, (d,)),
            ("candidates", others, (n, d)),
            ("online features", online, (n, d_online)),
        ):
            if array.shape != shape:
                raise DataError(f"{name} must have shape {shape} (got {array.shape})")
        if not np.isfinite(online).all():
            raise DataError("online features must be finite (got NaN or infinity)")
        if not 0 <= city_id < self.config.n_cities:
            raise DataError(f"city_id must lie in [0, {self.config.n_cities}) (got {city_id})")
        if not 0 <= slot <= N_TIME_SLOTS:
            raise DataError(f"slot must lie in [0, {N_TIME_SLOTS}] (got {slot})")


def _batch(array: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[None]


def _multi_hot(indices: Sequence[int], width: int, name: str) -> Tensor:
    out = torch.zeros(1, width)
    for index in indices:
        if not 0 <= index < width:
            raise DataError(f"{name} must lie in [0, {width}) (got {index})")
        out[0, index] = 1.0
    return out


def _probabilities(logits: Tensor) -> Floats:
    out: Floats = torch.sigmoid(logits[0]).numpy()
    return out
