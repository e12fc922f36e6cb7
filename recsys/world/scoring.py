"""The preference score: why a user goes to a place (seed, section 7.4), for whole blocks of users at once.

score = w_interest * cosine(fine_pref, tags) + w_category * (cat_pref . categories) + w_location * area + w_popularity *
log(1 + base_popularity) / 10. The first three are the user's *taste*; popularity is the same for everyone.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from recsys.constants import N_TIME_SLOTS
from recsys.world.config import Parameters, WorldConfig
from recsys.world.places import FADING, TRENDING, Floats, Ints, Places
from recsys.world.users import Users

_DAY_US: Final = 86_400_000_000

# How well a moment's slot suits a place's typical slot: 1 the same, a half for a neighbour.
_NEAR: Final = {(0, 4), (1, 4), (1, 2), (2, 3), (2, 5), (3, 5)}
SLOT_FIT: Final = np.array(
    [
        [1.0 if a == b else 0.5 if (a, b) in _NEAR or (b, a) in _NEAR else 0.0 for b in range(N_TIME_SLOTS)]
        for a in range(N_TIME_SLOTS)
    ]
)


@dataclass(frozen=True)
class Tastes:
    """What the score reads of some users: real ones, or a group of friends as the mean of its members.

    Attributes:
        fine: (R, C_FINE) float32 of length 1.
        cat: (R, C_COARSE) float32.
        area: (R, neighborhoods) float32; zeros for someone away from home.
    """

    fine: Floats
    cat: Floats
    area: Floats

    @classmethod
    def of(cls, users: Users, rows: Ints) -> "Tastes":
        """The tastes of some users at home."""
        return cls(unit(users.fine_pref[rows]), users.cat_pref[rows], users.area[rows])


def unit(values: Floats) -> Floats:
    """Rows scaled to length 1; rows of zeros stay."""
    norm = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    scaled: Floats = (values / np.maximum(norm, 1e-12)[:, None]).astype(np.float32)
    return scaled


@dataclass(frozen=True)
class City:
    """The places of one city, in order of their typical slot, ready to be scored.

    Attributes:
        ids: (m,) place ids.
        tags: (C_FINE, m) float32, columns of length 1.
        categories: (C_COARSE, m) float32.
        neighborhood: (m,) int64.
        draw: (m,) float32, w_popularity * log(1 + base_popularity) / 10.
        edges: (N_TIME_SLOTS + 1,) where each slot's places begin in `ids`.
    """

    ids: Ints
    tags: Floats
    categories: Floats
    neighborhood: Ints
    draw: Floats
    edges: Ints

    def taste(self, who: Tastes, numbers: Parameters) -> Floats:
        """(R, m) float32: the score without popularity."""
        score = numbers.w_interest * (who.fine @ self.tags)
        score += numbers.w_category * (who.cat @ self.categories)
        score += numbers.w_location * who.area[:, self.neighborhood]
        taste: Floats = score.astype(np.float32, copy=False)
        return taste


def make_cities(config: WorldConfig, places: Places) -> list[City]:
    """One `City` for each city of the world; some may be empty."""
    cities = []
    for c in range(config.cities):
        ids = np.flatnonzero(places.city == c)
        ids = ids[np.argsort(places.slot[ids], kind="stable")]
        cities.append(
            City(
                ids=ids,
                tags=np.ascontiguousarray(unit(places.tags[ids]).T),
                categories=np.ascontiguousarray(places.categories[ids].T),
                neighborhood=places.neighborhood[ids],
                draw=(config.numbers.w_popularity * np.log1p(places.popularity[ids]) / 10).astype(np.float32),
                edges=np.searchsorted(places.slot[ids], np.arange(N_TIME_SLOTS + 1)),
            )
        )
    return cities


def pair_taste(
    config: WorldConfig, users: Users, places: Places, user: Ints, place: Ints, away: npt.NDArray[np.bool_]
) -> Floats:
    """The taste of single pairs.

    Args:
        user, place: (B,) ids.
        away: (B,) the place is not in the user's home city: neighbourhood numbers of two cities do not compare.

    Returns:
        (B,) float32.
    """
    numbers = config.numbers
    fine, tags = unit(users.fine_pref[user]), unit(places.tags[place])
    area = np.where(away, 0.0, users.area[user, places.neighborhood[place]])
    score = numbers.w_interest * np.einsum("ij,ij->i", fine, tags)
    score += numbers.w_category * np.einsum("ij,ij->i", users.cat_pref[user], places.categories[place])
    taste: Floats = (score + numbers.w_location * area).astype(np.float32)
    return taste


class Sampler:
    """Draws places of one city for many (row, slot) at once, with probability exp(score / T) * slot factor.

    Places are sorted by typical slot, so a draw takes two steps: the typical slot, then a place within its run of the
    cumulative sum. One cumulative sum a row serves all slots.
    """

    def __init__(self, logits: Floats, city: City, slot_weight: float) -> None:
        """Prepare rows.

        Args:
            logits: (R, m) score / temperature.
            city: its places.
            slot_weight: log of the factor for a place in its typical slot.
        """
        mass = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        sums = np.cumsum(mass, axis=1)
        sums /= sums[:, -1:]
        self._width = sums.shape[1]
        self._edges = city.edges
        padded = np.concatenate([np.zeros((len(sums), 1)), sums], axis=1)
        self._low = padded[:, city.edges[:-1]]
        self._share = padded[:, city.edges[1:]] - self._low
        # Rows one after another, each lifted by its number, make one ascending array: one search for all draws.
        self._ladder = (sums + np.arange(len(sums))[:, None]).ravel()
        self._fit = np.exp(slot_weight * SLOT_FIT)

    def draw(self, rng: np.random.Generator, row: Ints, slot: Ints) -> Ints:
        """Draw one place for each (row, slot).

        Args:
            row, slot: (B,) positions of `logits` rows, and time slots.

        Returns:
            (B,) position in `city.ids`.
        """
        weights = np.cumsum(self._share[row] * self._fit[slot], axis=1)
        target = rng.random(len(row)) * weights[:, -1]
        kind = np.minimum((weights <= target[:, None]).sum(axis=1), N_TIME_SLOTS - 1)
        within = self._low[row, kind] + rng.random(len(row)) * self._share[row, kind]
        found = np.searchsorted(self._ladder, within + row, side="right") - row * self._width
        # Rounding at the rim of a run must not reach into the next one.
        return np.asarray(np.clip(found, self._edges[kind], self._edges[kind + 1] - 1))


def alive(places: Places, place: Ints, moment: Ints) -> Floats:
    """How much of its full draw a place has at a moment: openings, trends and fadings.

    Args:
        place: (B,) ids.
        moment: (B,) microseconds since 1970.

    Returns:
        (B,) float32 in [0, 1]; 0 before the place opens. A stable place has 0.6, so that there is room above it.
    """
    kind = places.trend[place]
    days = (moment - places.peak[place]) / _DAY_US
    level = np.full(len(place), 0.6)
    level = np.where(kind == TRENDING, 0.25 + 0.75 * np.exp(-0.5 * (days / 12.0) ** 2), level)
    level = np.where(kind == FADING, 0.1 + 0.8 / (1.0 + np.exp(days / 6.0)), level)
    age = (moment - places.opened[place]) / _DAY_US
    fresh = places.opened[place] > places.opened.min()
    level = np.where(fresh, 0.6 + 0.4 * np.exp(-age / 14.0), level)
    factor: Floats = np.where(age < 0, 0.0, level).astype(np.float32)
    return factor
