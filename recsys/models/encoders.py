"""Raw node features → vectors of the model's width (seed, section 4.2), by the column layout of `recsys.taxonomy`."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from recsys.constants import MAX_NEIGHBORHOODS_PER_USER, N_PRICE_BANDS, N_TIME_SLOTS
from recsys.errors import DataError
from recsys.models.config import ModelConfig
from recsys.models.dropout import Dropout

_PLACE_IDS = ("city_id", "neighborhood_id", "price_band", "typical_time_slot")
_CLIP = 8.0  # standard deviations; one wild value of a rare column must not drown the others


def block(x: Tensor, layout: Mapping[str, tuple[int, int]], name: str) -> Tensor:
    """The columns of one block of a layout."""
    start, stop = layout[name]
    return x[:, start:stop]


class Standardize(nn.Module):
    """Columns to mean 0 and deviation 1, by statistics that are fitted once on training data and saved as buffers.

    Shapes:
        (..., D) → (..., D)
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def fit(self, x: Tensor) -> None:
        """Set mean and scale from (N, D); a column that does not vary is only centred."""
        deviation = x.std(dim=0, correction=0)
        self.mean.copy_(x.mean(dim=0))
        self.scale.copy_(torch.where(deviation > 1e-6, 1.0 / deviation.clamp(min=1e-6), torch.ones_like(deviation)))

    def forward(self, x: Tensor) -> Tensor:
        """Standardised and clipped to ±8."""
        return ((x - self.mean) * self.scale).clamp(-_CLIP, _CLIP)


class NeighborhoodTable(nn.Module):
    """One vector a (city, neighbourhood) pair, shared by users, their areas and places (amendment 12).

    Row 0 stands for "none"; it stays zero.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_neighborhoods = config.n_neighborhoods
        self.rows = nn.Embedding(config.n_cities * config.n_neighborhoods + 1, config.d_neighborhood, padding_idx=0)

    def forward(self, city: Tensor, neighborhood: Tensor) -> Tensor:
        """(...,) int64 each, -1 for no neighbourhood → (..., d_neighborhood)."""
        row = city * self.n_neighborhoods + neighborhood + 1
        out: Tensor = self.rows(torch.where(neighborhood < 0, torch.zeros_like(row), row))
        return out


def _mlp(d_in: int, d_out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(d_in, 2 * d_out), nn.LayerNorm(2 * d_out), nn.ReLU(), Dropout(dropout), nn.Linear(2 * d_out, d_out)
    )


class _Encoder(nn.Module):
    """The seed's two-layer encoder, plus a linear path beside it.

    Differs from the seed: a linear path from input to output, because what is matched across the two sides (tags
    with preferences, areas with neighbourhoods) is a plain inner product that a ReLU layer must first approximate.
    """

    def __init__(self, d_in: int, config: ModelConfig) -> None:
        super().__init__()
        self.mlp = _mlp(d_in, config.d_model, config.dropout)
        self.linear = nn.Linear(d_in, config.d_model)
        self.norm = nn.LayerNorm(config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.mlp(x) + self.linear(x))
        return out


class UserEncoder(nn.Module):
    """A person: home, areas, tastes, behaviour.

    Areas enter as the mean of their neighbourhoods' vectors by weight; the seed's five bare weights lose where.

    Shapes:
        x (N, d_user), area_ids (N, 5) int64 with -1 where there are fewer → (N, d_model)
    """

    def __init__(self, config: ModelConfig, neighborhoods: NeighborhoodTable) -> None:
        super().__init__()
        self.neighborhoods = neighborhoods
        self.city = nn.Embedding(config.n_cities, config.d_city)
        self.layout = config.widths.user_x
        width = config.widths.d_user - 2
        self.standardize = Standardize(width)
        self.encoder = _Encoder(config.d_city + 2 * config.d_neighborhood + width, config)

    def forward(self, x: Tensor, area_ids: Tensor) -> Tensor:
        """See the class."""
        city, home = (
            block(x, self.layout, "home_city_id").long()[:, 0],
            block(x, self.layout, "home_neighborhood_id").long()[:, 0],
        )
        areas = self.neighborhoods(city[:, None].expand_as(area_ids), area_ids)
        weights = block(x, self.layout, "area_freqs")
        area = torch.einsum("na,nad->nd", weights, areas)
        parts = [self.city(city), self.neighborhoods(city, home), area, self.standardize(x[:, 2:])]
        out: Tensor = self.encoder(torch.cat(parts, dim=1))
        return out


class PlaceEncoder(nn.Module):
    """A place: where, what, at what price and time, how much visited.

    Shapes:
        x (M, d_place) → (M, d_model)
    """

    def __init__(self, config: ModelConfig, neighborhoods: NeighborhoodTable) -> None:
        super().__init__()
        self.neighborhoods = neighborhoods
        self.city = nn.Embedding(config.n_cities, config.d_city)
        self.price = nn.Embedding(N_PRICE_BANDS, config.d_price)
        self.slot = nn.Embedding(N_TIME_SLOTS, config.d_slot)
        self.layout = config.widths.place_x
        width = config.widths.d_place - len(_PLACE_IDS)
        self.standardize = Standardize(width)
        tables = config.d_city + config.d_neighborhood + config.d_price + config.d_slot
        self.encoder = _Encoder(tables + width, config)

    def continuous(self, x: Tensor) -> Tensor:
        """(M, d_place - 4): every column that is not an id."""
        names = ("category_one_hot", "fine_tag_vector", "popularity")
        return torch.cat([block(x, self.layout, name) for name in names], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        ids = {n: block(x, self.layout, n).long()[:, 0] for n in _PLACE_IDS}
        parts = [
            self.city(ids["city_id"]),
            self.neighborhoods(ids["city_id"], ids["neighborhood_id"]),
            self.price(ids["price_band"]),
            self.slot(ids["typical_time_slot"]),
            self.standardize(self.continuous(x)),
        ]
        out: Tensor = self.encoder(torch.cat(parts, dim=1))
        return out


def check_ids(config: ModelConfig, user_x: Tensor, area_ids: Tensor, place_x: Tensor) -> None:
    """Refuse ids that the tables do not hold, and shapes and values that the layout does not allow.

    Args:
        config: sizes of the tables.
        user_x: (N, d_user).
        area_ids: (N, 5), -1 for none.
        place_x: (M, d_place).

    Raises:
        DataError: names the feature, the allowed range and what was found.
    """
    expected = {
        "user.x": (user_x, config.widths.d_user),
        "place.x": (place_x, config.widths.d_place),
        "area_ids": (area_ids, MAX_NEIGHBORHOODS_PER_USER),
    }
    for name, (tensor, width) in expected.items():
        if tensor.dim() != 2 or tensor.shape[1] != width:
            raise DataError(f"{name} must have {width} columns (got shape {tuple(tensor.shape)})")
        if len(tensor) == 0:
            raise DataError(f"{name} must have at least one row (got none)")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            column = int((~torch.isfinite(tensor)).any(dim=0).nonzero()[0, 0])
            rows = int((~torch.isfinite(tensor)).any(dim=1).sum())
            raise DataError(f"{name} column {column} is not finite ({rows} rows have such values)")
    neighborhoods, users, places = config.n_neighborhoods, config.widths.user_x, config.widths.place_x
    columns = {
        "user home_city_id": (block(user_x, users, "home_city_id"), 0, config.n_cities),
        "user home_neighborhood_id": (block(user_x, users, "home_neighborhood_id"), 0, neighborhoods),
        "user area_ids": (area_ids, -1, neighborhoods),
        "place city_id": (block(place_x, places, "city_id"), 0, config.n_cities),
        "place neighborhood_id": (block(place_x, places, "neighborhood_id"), 0, neighborhoods),
        "place price_band": (block(place_x, places, "price_band"), 0, N_PRICE_BANDS),
        "place typical_time_slot": (block(place_x, places, "typical_time_slot"), 0, N_TIME_SLOTS),
    }
    for name, (column_values, low, stop) in columns.items():
        least, most = int(column_values.min()), int(column_values.max())
        if least < low or most >= stop:
            raise DataError(f"{name} must lie in [{low}, {stop}), the model's sizes (got {least} to {most})")
