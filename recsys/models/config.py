"""Sizes of the model. They travel in the artifact's manifest, since training and serving must agree on all of them."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from recsys.constants import D_CONTEXT, D_MODEL, N_CITIES, N_NEIGHBORHOODS_PER_CITY
from recsys.errors import ConfigError
from recsys.taxonomy import CITY, Widths

Aggregation = Literal["mean", "sum", "attention"]
MESSAGES: Final = ("social", "interacts", "rev_interacts")
INPUTS: Final = ("online", "sources")


@dataclass(frozen=True)
class ModelConfig:
    """What the model is built from (seed, section 4.1); the data set gives the sizes of its geography and taxonomy.

    Attributes:
        n_cities, n_neighborhoods: ids below these are known to the embedding tables.
        n_categories, n_tags, n_vibes: sizes of the taxonomy.
        d_model: width of encoders, layers and embeddings.
        d_context: width of a request's context vector.
        n_layers: message passing layers.
        aggregation: how a node sums up its weighted neighbours; see `recsys.models.sparse`.
        messages: which edges carry messages, of MESSAGES; over others nothing is told.
        gate_hidden: hidden units of the edge gates; 0: no gates, every edge weighs the same.
        inputs: what the heads read beside vectors and context, of INPUTS: features read online, and, for places, what
            sources say.
        d_city, d_neighborhood, d_price, d_slot: widths of the embedding tables.
        head_hidden: the two hidden widths of both heads; narrow_hidden: both of the place head's narrow path.
        members: how many narrow and linear paths the place head has, whose mean counts.
        dropout, head_dropout, narrow_dropout: probabilities.
        alpha: weight of compatibility against attendance in the combined score.
    """

    n_cities: int = N_CITIES
    n_neighborhoods: int = N_NEIGHBORHOODS_PER_CITY
    n_categories: int = CITY.widths.categories
    n_tags: int = CITY.widths.tags
    n_vibes: int = CITY.widths.vibes
    d_model: int = D_MODEL
    d_context: int = D_CONTEXT
    n_layers: int = 2
    aggregation: Aggregation = "mean"
    messages: tuple[str, ...] = MESSAGES
    gate_hidden: int = 8
    inputs: tuple[str, ...] = INPUTS
    d_city: int = 16
    d_neighborhood: int = 32
    d_price: int = 8
    d_slot: int = 8
    head_hidden: tuple[int, int] = (256, 128)
    narrow_hidden: int = 32
    members: int = 4
    dropout: float = 0.1
    head_dropout: float = 0.1
    narrow_dropout: float = 0.2
    alpha: float = 0.7

    def __post_init__(self) -> None:
        for name in ("n_cities", "n_neighborhoods", "n_categories", "n_tags", "n_vibes", "d_model", "d_context",
                     "n_layers", "narrow_hidden", "members"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1 (got {getattr(self, name)})")
        if self.gate_hidden < 0:
            raise ConfigError(f"gate_hidden must be at least 0 (got {self.gate_hidden})")
        for name, known in (("messages", MESSAGES), ("inputs", INPUTS)):
            if wrong := [one for one in getattr(self, name) if one not in known]:
                raise ConfigError(f"{name} must be of {known} (got {wrong[0]!r})")
        for name in ("dropout", "head_dropout", "narrow_dropout", "alpha"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie in [0, 1] (got {getattr(self, name)})")
        if self.aggregation not in get_args(Aggregation):
            raise ConfigError(f"aggregation must be one of {get_args(Aggregation)} (got {self.aggregation!r})")

    @property
    def widths(self) -> Widths:
        """How many categories, tags and vibes."""
        return Widths(self.n_categories, self.n_tags, self.n_vibes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Back from JSON.

        Raises:
            ConfigError: a field that this code does not know.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := set(values) - known:
            raise ConfigError(f"unknown model fields (got {sorted(unknown)})")
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**fields)
