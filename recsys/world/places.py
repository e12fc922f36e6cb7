"""Places: where, what kind, at what price and time (seed, section 7.2)."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.constants import C_COARSE, C_FINE, N_TIME_SLOTS, TAG_CATEGORY
from recsys.schemas import PLACES
from recsys.world.config import CITY_SHARES, WorldConfig
from recsys.world.names import CITY_NAMES, CITY_POSITIONS, neighborhood_name, place_names
from recsys.world.streams import Stream, blocks, choose, choose_rows, stream, subset

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# (category, tag): does the tag belong to the category.
TAG_OF_CATEGORY: Final[npt.NDArray[np.bool_]] = np.arange(C_COARSE)[:, None] == np.array(TAG_CATEGORY)[None, :]

_PLACES_PER_CITY: Final = 5  # at least, where there are enough
_EXPENSIVE_CITIES: Final = 2  # the first ones (seed)
_PRICES: Final = np.array([[0.3, 0.4, 0.2, 0.1, 0.0], [0.0, 0.0, 0.3, 0.5, 0.2]])

# `city`: when a category's places are busy. Rows: categories; columns: morning, afternoon, evening, night, weekend
# day, weekend night.
_SLOTS_OF_CATEGORY: Final = np.array(
    [
        [0.02, 0.13, 0.45, 0.10, 0.15, 0.15],  # entertainment
        [0.25, 0.20, 0.30, 0.00, 0.25, 0.00],  # sports
        [0.00, 0.02, 0.23, 0.35, 0.00, 0.40],  # clubs
        [0.15, 0.20, 0.35, 0.05, 0.15, 0.10],  # dining
        [0.20, 0.25, 0.05, 0.00, 0.50, 0.00],  # outdoors
        [0.10, 0.30, 0.25, 0.00, 0.30, 0.05],  # culture
    ]
)
STABLE, TRENDING, FADING = range(3)


@dataclass(frozen=True)
class Places:
    """Columns of all places, and what only the generator knows.

    Attributes:
        city, neighborhood, price_band, slot: (M,) int64.
        categories: (M, C_COARSE) float32, weights of one or two categories, sum 1.
        tags: (M, C_FINE) float32, sum 1.
        popularity, daily_visits, conversion: (M,) float32.
        opened: (M,) int64, microseconds since 1970.
        trend: (M,) STABLE, TRENDING or FADING.
        peak: (M,) microseconds: the top of a trend, the middle of a fading.
    """

    city: Ints
    neighborhood: Ints
    price_band: Ints
    slot: Ints
    categories: Floats
    tags: Floats
    popularity: Floats
    daily_visits: Floats
    conversion: Floats
    opened: Ints
    trend: Ints
    peak: Ints

    def __len__(self) -> int:
        return len(self.city)


def city_shares(config: WorldConfig) -> npt.NDArray[np.float64]:
    """(cities,) share of users and places of each city, summing to 1."""
    if config.city_weights is not None:
        return np.array(config.city_weights)
    if config.preset == "city" and config.cities <= len(CITY_SHARES):
        fixed = np.array(CITY_SHARES[: config.cities])
        return np.asarray(fixed / fixed.sum())
    drawn: npt.NDArray[np.float64] = stream(config.seed, Stream.CITIES).dirichlet(np.full(config.cities, 2.0))
    return drawn


def neighborhood_shares(config: WorldConfig) -> npt.NDArray[np.float64]:
    """(neighborhoods,) how much goes on in each: level in `seed`, a busy centre in `city`."""
    ranks = np.arange(config.neighborhoods)
    weights = np.ones(config.neighborhoods) if config.preset == "seed" else 1.0 / (ranks + 4.0)
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares


def late_arrivals(config: WorldConfig, rng: np.random.Generator, size: int) -> Ints:
    """(size,) microseconds: the start of the horizon for most, a later moment for the share `late`."""
    numbers = config.numbers
    span = config.end_us - config.start_us
    late = rng.random(size) < numbers.late
    first = int(span * numbers.late_from)
    # The last days are left out, so that whoever arrives leaves a trace.
    moments = rng.integers(first, max(first + 1, int(span * 0.96)), size)
    return config.start_us + np.where(late, moments, 0)


def _fill_empty_cities(city: Ints, cities: int) -> Ints:
    # A city without places could recommend nothing: the largest ones give some away, last ones first.
    least = min(_PLACES_PER_CITY, len(city) // cities)
    city = city.copy()
    for c in range(cities):
        while np.count_nonzero(city == c) < least:
            largest = int(np.argmax(np.bincount(city, minlength=cities)))
            city[np.flatnonzero(city == largest)[-1]] = c
    return city


def make_places(config: WorldConfig) -> Places:
    """Draw all places of a world."""
    numbers = config.numbers
    shares, areas = city_shares(config), neighborhood_shares(config)
    if config.preset == "city":
        # Large cities have more people to a place.
        shares = shares**0.15 / (shares**0.15).sum()
    parts: list[dict[str, npt.NDArray[Any]]] = []
    for block, (start, stop) in enumerate(blocks(config.places)):
        rng, n = stream(config.seed, Stream.PLACES, block), stop - start
        part: dict[str, npt.NDArray[Any]] = {"city": choose(rng, shares, n), "neighborhood": choose(rng, areas, n)}
        count = np.where(rng.random(n) < 0.7, 1, 2)
        chosen = subset(rng, np.ones((n, C_COARSE), dtype=bool), count)
        part["categories"] = chosen / count[:, None]
        tagged = subset(rng, chosen @ TAG_OF_CATEGORY, rng.integers(3, 8, n))
        weights = np.where(tagged, rng.exponential(1.0, (n, C_FINE)), 0.0)
        part["tags"] = weights / weights.sum(axis=1, keepdims=True)
        part["price_u"] = rng.random(n)
        if config.preset == "seed":
            part["slot"] = rng.integers(0, N_TIME_SLOTS, n)
        else:
            part["slot"] = choose_rows(rng, part["categories"] @ _SLOTS_OF_CATEGORY)
        popularity = rng.lognormal(1.0, numbers.popularity_sigma, n)
        part["popularity"] = popularity
        part["daily_visits"] = popularity * rng.uniform(0.8, 1.2, n) * 10
        part["conversion"] = np.clip(rng.beta(2, 5, n) * (popularity / 10), 0.05, 0.95)
        part["opened"] = late_arrivals(config, rng, n)
        trend = rng.random(n)
        part["trend"] = np.select([trend < numbers.trending, trend < 2 * numbers.trending], [TRENDING, FADING], STABLE)
        part["peak"] = config.start_us + rng.integers(0, config.end_us - config.start_us, n)
        parts.append(part)
    columns = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    city = _fill_empty_cities(columns["city"], config.cities)
    expensive = (city < _EXPENSIVE_CITIES).astype(np.int64)
    price = (np.cumsum(_PRICES, axis=1)[expensive] <= columns.pop("price_u")[:, None]).sum(axis=1)
    late = columns["opened"] > config.start_us
    return Places(
        city=city,
        neighborhood=columns["neighborhood"],
        price_band=np.minimum(price, 4),
        slot=columns["slot"],
        categories=columns["categories"].astype(np.float32),
        tags=columns["tags"].astype(np.float32),
        popularity=columns["popularity"].astype(np.float32),
        daily_visits=columns["daily_visits"].astype(np.float32),
        conversion=columns["conversion"].astype(np.float32),
        opened=columns["opened"],
        # What opens late has the excitement of the new, not a trend besides.
        trend=np.where(late, STABLE, columns["trend"]),
        peak=columns["peak"],
    )


def neighborhood_positions(config: WorldConfig) -> npt.NDArray[np.float64]:
    """(cities, neighborhoods, 2) latitude and longitude, degrees: a sunflower around each city's centre.

    The busy neighbourhoods come first and so lie in the middle (Vogel, "A better way to construct the sunflower head",
    1979), about a square kilometre and a half to each.
    """
    rng = stream(config.seed, Stream.COORDINATES, 0)
    number = np.arange(config.neighborhoods)
    turn = rng.random((config.cities, 1)) * 2 * np.pi + number * np.pi * (3 - np.sqrt(5))
    km = 0.7 * np.sqrt(number + 0.25) * np.exp(0.1 * rng.standard_normal((config.cities, config.neighborhoods)))
    center = np.array(CITY_POSITIONS[: config.cities])
    return _moved(center[:, None, :], km * np.sin(turn), km * np.cos(turn))


def place_positions(config: WorldConfig, places: Places) -> npt.NDArray[np.float64]:
    """(M, 2) latitude and longitude of places, degrees: a few hundred metres around their neighbourhood's middle."""
    out = neighborhood_positions(config)[places.city, places.neighborhood]
    for block, (start, stop) in enumerate(blocks(len(places))):
        north, east = stream(config.seed, Stream.COORDINATES, 1 + block).normal(0.0, 0.3, (2, stop - start))
        out[start:stop] = _moved(out[start:stop], north, east)
    return np.round(out, 6)


def _moved(
    position: npt.NDArray[np.float64], north_km: npt.NDArray[np.float64], east_km: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    degree_km = 111.2
    latitude = position[..., 0] + north_km / degree_km
    longitude = position[..., 1] + east_km / (degree_km * np.cos(np.radians(position[..., 0])))
    return np.stack([latitude, longitude], axis=-1)


def places_table(config: WorldConfig, places: Places) -> pa.Table:
    """The places as `schemas.PLACES` has them."""
    n = len(places)
    first = places.categories.argmax(axis=1)
    rows, ids = np.nonzero(places.categories)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))]).astype(np.int32)
    where = place_positions(config, places)
    novelty = 1.0 / (1.0 + np.log1p(places.popularity.astype(np.float64)))
    columns: dict[str, Any] = {
        "place_id": np.arange(n),
        "name": place_names(config.seed, first),
        "city_id": places.city.astype(np.int32),
        "city_name": [CITY_NAMES[c] for c in places.city],
        "latitude": where[:, 0],
        "longitude": where[:, 1],
        "neighborhood_id": places.neighborhood.astype(np.int32),
        "neighborhood_name": [
            neighborhood_name(int(c), int(h), config.neighborhoods)
            for c, h in zip(places.city, places.neighborhood, strict=True)
        ],
        "category_ids": pa.ListArray.from_arrays(offsets, ids.astype(np.int32)),
        "category_one_hot": fixed_lists(places.categories),
        "fine_tag_vector": fixed_lists(places.tags),
        "price_band": places.price_band.astype(np.int32),
        "typical_time_slot": places.slot.astype(np.int32),
        "base_popularity": places.popularity,
        "avg_daily_visits": places.daily_visits,
        "conversion_rate": places.conversion,
        "novelty_score": novelty.astype(np.float32),
        "as_of": places.opened,
    }
    schema = PLACES.arrow
    return pa.Table.from_arrays([pa.array(columns[f.name]).cast(f.type) for f in schema], schema=schema)


def fixed_lists(values: Floats) -> pa.Array:
    """(N, K) → N lists of K."""
    n, k = values.shape
    return pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32) * k, pa.array(values.ravel()))
