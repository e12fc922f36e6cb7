"""Users: where they live, what they like, how they behave, and when they go out (seed, section 7.3)."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.constants import C_COARSE, C_VIBE, COARSE_CATEGORIES, VIBE_TAGS
from recsys.schemas import USERS
from recsys.world.config import WorldConfig
from recsys.world.names import user_names
from recsys.world.places import (
    TAG_OF_CATEGORY,
    Floats,
    Ints,
    city_shares,
    fixed_lists,
    late_arrivals,
    neighborhood_shares,
)
from recsys.world.streams import Stream, blocks, choose, choose_rows, stream, subset

_BEHAVIOR: Final = (
    "sessions_per_week", "views_per_session", "likes_per_session", "saves_per_session", "attends_per_month",
)  # fmt: skip

# `city`: share of a week's sessions by weekday/weekend × morning, afternoon, evening, night, before vibes shift it.
_RHYTHM: Final = np.array([[0.10, 0.16, 0.31, 0.05], [0.07, 0.15, 0.11, 0.05]])
# Log of how a whole-hearted trait shifts it: (trait, weekday row, weekend row).
_SHIFTS: Final[dict[str, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    "early_bird": ((5.0, 1.0, -2.0, -4.0), (5.0, 1.0, -2.0, -4.0)),
    "night_owl": ((-3.0, -1.0, 1.0, 6.0), (-3.0, -1.0, 1.0, 6.0)),
    "party": ((-2.0, -1.0, 1.0, 4.0), (-2.0, 0.0, 3.0, 6.0)),
    "fitness": ((4.0, 0.0, 1.0, -3.0), (4.0, 1.0, -1.0, -3.0)),
    "social": ((-1.0, -1.0, 1.0, 1.0), (1.0, 2.0, 3.0, 2.0)),
    "family_minded": ((-1.0, 1.0, -1.0, -4.0), (3.0, 4.0, 0.0, -4.0)),
    "introvert": ((1.0, 2.0, 0.0, -2.0), (0.0, 0.0, -1.0, -2.0)),
    "nature_lover": ((2.0, 1.0, -1.0, -2.0), (3.0, 3.0, -1.0, -2.0)),
    "foodie": ((0.0, 0.0, 2.0, 0.0), (1.0, 1.0, 2.0, 0.0)),
    "bookish": ((1.0, 2.0, 0.0, -2.0), (1.0, 2.0, -1.0, -2.0)),
}
_CLUB_NIGHTS: Final = ((0.0, 0.0, 0.5, 2.0), (0.0, 0.0, 1.0, 2.5))  # per unit of cat_pref for clubs
_TRAVEL_TRAITS: Final = ("traveller", "adventurous", "spontaneous")


@dataclass(frozen=True)
class Users:
    """Columns of all users, and what only the generator knows.

    Attributes:
        city, neighborhood: (N,) int64, home.
        cat_pref (N, C_COARSE), fine_pref (N, C_FINE), vibe_pref (N, C_VIBE): float32, sum 1; as of joining.
        area: (N, neighborhoods) float32, weights of the neighbourhoods of the home city, sum 1.
        behavior: (N, 5) float32: sessions/week, views/session, likes/session, saves/session, attendances/month.
        joined: (N,) int64, microseconds since 1970.
        means: (N,) float32, the highest price band that does not hurt, 0 to 4.
        later_cat, later_fine: as cat_pref and fine_pref, the tastes that these drift towards.
        rhythm: (N, 8) float32, share of sessions by weekday/weekend × time of day.
        where: (N, weeks) int16, the city a week is spent in.
    """

    city: Ints
    neighborhood: Ints
    cat_pref: Floats
    fine_pref: Floats
    vibe_pref: Floats
    area: Floats
    behavior: Floats
    joined: Ints
    means: Floats
    later_cat: Floats
    later_fine: Floats
    rhythm: Floats
    where: npt.NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.city)


def _normalised(values: npt.NDArray[np.float64]) -> Floats:
    out: Floats = (values / values.sum(axis=1, keepdims=True)).astype(np.float32)
    return out


def _rhythm(vibe: Floats, cat: Floats) -> Floats:
    shift = np.zeros((len(vibe), 2, 4))
    for trait, by_day in _SHIFTS.items():
        shift += vibe[:, VIBE_TAGS.index(trait), None, None] * np.array(by_day)
    shift += cat[:, COARSE_CATEGORIES.index("clubs"), None, None] * np.array(_CLUB_NIGHTS)
    return _normalised((_RHYTHM * np.exp(shift)).reshape(len(vibe), 8))


def _trips(config: WorldConfig, city: Ints, vibe: Floats) -> npt.NDArray[np.int16]:
    where = np.repeat(city.astype(np.int16)[:, None], config.weeks, axis=1)
    if config.preset == "seed" or config.cities < 2:
        return where
    shares = city_shares(config)
    traits = [VIBE_TAGS.index(t) for t in _TRAVEL_TRAITS]
    # Mean 1 over users: three of thirty traits, so a tenth of all weight.
    keenness = 0.4 + 6.0 * vibe[:, traits].sum(axis=1)
    for block, (start, stop) in enumerate(blocks(len(city))):
        rng = stream(config.seed, Stream.TRIPS, block)
        away = np.repeat(shares[None, :], stop - start, axis=0)
        away[np.arange(stop - start), city[start:stop]] = 0.0
        favourite = choose_rows(rng, away)
        gone = rng.random((stop - start, config.weeks)) < config.numbers.travel * keenness[start:stop, None]
        usual = rng.random((stop - start, config.weeks)) < 0.6
        other = np.stack([choose_rows(rng, away) for _ in range(config.weeks)], axis=1)
        target = np.where(usual, favourite[:, None], other)
        where[start:stop] = np.where(gone, target, where[start:stop])
    return where


def _tastes(config: WorldConfig, rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Weights of categories (n, C_COARSE), and of tags (n, C_FINE) after them."""
    numbers = config.numbers
    cat = _normalised(rng.standard_gamma(numbers.alpha_cat, (n, C_COARSE)))
    boost = np.where(cat > 0.1, cat, 0.0) @ TAG_OF_CATEGORY  # only categories that matter to the user (seed)
    return cat, _normalised(rng.standard_gamma(numbers.alpha_fine_base + numbers.alpha_fine * boost))


def _means(rng: np.random.Generator, vibe: Floats) -> Floats:
    """(n,) 0 to 4: most people can pay for the middle bands; the frugal and the luxurious say so in their vibes."""
    said = 4.0 * (vibe[:, VIBE_TAGS.index("luxurious")] - vibe[:, VIBE_TAGS.index("frugal")])
    means: Floats = np.clip(4.0 * rng.beta(2.5, 2.5, len(vibe)) + said, 0.0, 4.0).astype(np.float32)
    return means


def make_users(config: WorldConfig) -> Users:
    """Draw all users of a world."""
    numbers = config.numbers
    shares, areas = city_shares(config), neighborhood_shares(config)
    parts: list[dict[str, npt.NDArray[Any]]] = []
    for block, (start, stop) in enumerate(blocks(config.users)):
        rng, n = stream(config.seed, Stream.USERS, block), stop - start
        part: dict[str, npt.NDArray[Any]] = {"city": choose(rng, shares, n), "neighborhood": choose(rng, areas, n)}
        part["cat_pref"], part["fine_pref"] = _tastes(config, rng, n)
        traits = subset(rng, np.ones((n, C_VIBE), dtype=bool), rng.integers(3, 11, n))
        part["vibe_pref"] = _normalised(np.where(traits, rng.exponential(1.0, (n, C_VIBE)), 0.0))
        low, high = np.array([getattr(numbers, name) for name in _BEHAVIOR]).T
        part["behavior"] = (low + (high - low) * rng.random((n, len(_BEHAVIOR)))).astype(np.float32)
        # One to three neighbourhoods; in `city` the home is one of them, and the busy ones come up more often.
        keys = rng.random((n, config.neighborhoods)) ** (1.0 / (areas * config.neighborhoods))
        if config.preset == "city":
            keys[np.arange(n), part["neighborhood"]] = 2.0
        rank = np.argsort(np.argsort(-keys, axis=1), axis=1)
        frequent = rank < rng.integers(1, 4, n)[:, None]
        part["area"] = _normalised(np.where(frequent, rng.standard_gamma(numbers.alpha_area, frequent.shape), 0.0))
        part["joined"] = late_arrivals(config, rng, n)
        part["means"] = _means(stream(config.seed, Stream.MEANS, block), part["vibe_pref"])
        part["later_cat"], part["later_fine"] = _tastes(config, stream(config.seed, Stream.DRIFT, block), n)
        parts.append(part)
    columns = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    rhythm = _rhythm(columns["vibe_pref"], columns["cat_pref"])
    where = _trips(config, columns["city"], columns["vibe_pref"])
    return Users(**columns, rhythm=rhythm, where=where)


def users_table(config: WorldConfig, users: Users) -> pa.Table:
    """The users as `schemas.USERS` has them."""
    n = len(users)
    rows, ids = np.nonzero(users.area)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))]).astype(np.int32)
    columns: dict[str, Any] = {
        "user_id": np.arange(n),
        "name": user_names(config.seed, n),
        "home_city_id": users.city.astype(np.int32),
        "home_neighborhood_id": users.neighborhood.astype(np.int32),
        "cat_pref": fixed_lists(users.cat_pref),
        "fine_pref": fixed_lists(users.fine_pref),
        "vibe_pref": fixed_lists(users.vibe_pref),
        "area_freqs": pa.MapArray.from_arrays(offsets, ids.astype(np.int32), users.area[rows, ids]),
        **{f"avg_{name}": users.behavior[:, i] for i, name in enumerate(_BEHAVIOR)},
        "as_of": users.joined,
    }
    schema = USERS.arrow
    return pa.Table.from_arrays([pa.array(columns[f.name]).cast(f.type) for f in schema], schema=schema)
