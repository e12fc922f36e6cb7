"""The preference score: why a user goes to a place (seed, section 7.4), for whole blocks of users at once.

score = w_interest * cosine(fine_pref, tags) + w_category * (cat_pref . categories) + w_location * area + w_popularity *
log(1 + base_popularity) / 10. The first three are the user's *taste*; popularity is the same for everyone. In `city` a
price above the user's means takes from the taste, and tastes drift from season to season: from fine_pref and cat_pref,
which are those of the day when the user joined, as the profile says them.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from recsys.constants import N_PRICE_BANDS, N_TIME_SLOTS
from recsys.world.config import SEASON_WEEKS, Parameters, WorldConfig
from recsys.world.places import FADING, TRENDING, Floats, Ints, Places
from recsys.world.streams import Stream, Streams
from recsys.world.users import Users

_DAY_US: Final = 86_400_000_000
_CITY_STRIDE: Final = 64  # cities are fewer
_BANDS: Final = np.arange(1, N_PRICE_BANDS)

# How well a moment's slot suits a place's typical slot: 1 the same, a half for a neighbour.
_NEAR: Final = {(0, 4), (1, 4), (1, 2), (2, 3), (2, 5), (3, 5)}
SLOT_FIT: Final = np.array(
    [
        [1.0 if a == b else 0.5 if (a, b) in _NEAR or (b, a) in _NEAR else 0.0 for b in range(N_TIME_SLOTS)]
        for a in range(N_TIME_SLOTS)
    ]
)


def slot_factor(slot_weight: float) -> npt.NDArray[np.float64]:
    """(slot of the moment, typical slot): by how much a place's chance grows when its time fits."""
    return np.asarray(np.exp(slot_weight * SLOT_FIT))


@dataclass(frozen=True)
class Tastes:
    """What the score reads of some users: real ones, or a group of friends as one.

    Attributes:
        fine: (R, C_FINE) float32 of length 1.
        cat: (R, C_COARSE) float32.
        area: (R, neighborhoods) float32; zeros for someone away from home.
        means: (R,) float32, the highest price band that does not hurt.
    """

    fine: Floats
    cat: Floats
    area: Floats
    means: Floats

    @classmethod
    def of(cls, config: WorldConfig, users: Users, rows: Ints, season: int | Ints) -> "Tastes":
        """The tastes of some users (R,) at home in a season, or each in one of its own (R,)."""
        fine, cat = users.fine_pref[rows], users.cat_pref[rows]
        turned = config.turned(season, season_of(config, users.joined[rows]))[:, None]
        if turned.any():
            stays, comes = (1 - turned).astype(np.float32), turned.astype(np.float32)
            fine = stays * fine + comes * users.later_fine[rows]
            cat = stays * cat + comes * users.later_cat[rows]
        return cls(unit(fine), cat, users.area[rows], users.means[rows])

    def sides(self, numbers: Parameters) -> Floats:
        """(R, K) float32: what each makes of each of `City.traits`."""
        prices = -numbers.price_aversion * np.maximum(_BANDS - self.means[:, None], 0.0)
        weighted = (
            numbers.w_interest * self.fine,
            numbers.w_category * self.cat,
            numbers.w_location * self.area,
            prices,
        )
        return np.concatenate(weighted, axis=1, dtype=np.float32)

    def visiting(self, home: npt.NDArray[np.bool_]) -> "Tastes":
        """The same people in a city that is home (R,) to some: to others its neighbourhoods are all alike."""
        return replace(self, area=np.where(home[:, None], self.area, np.float32(0.0)))


def unit(values: Floats) -> Floats:
    """Rows scaled to length 1; rows of zeros stay."""
    norm = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    scaled: Floats = (values / np.maximum(norm, 1e-12)[:, None]).astype(np.float32)
    return scaled


@dataclass(frozen=True)
class City:
    """The places of one city, in order of their typical slot, ready to be scored.

    Attributes:
        number: the city's id.
        ids: (m,) place ids.
        traits: (K, m) float32, one under another: tags of length 1, categories, a row for each neighbourhood and for
            each price band above the lowest. What a user makes of each is the other side of a product (`Tastes.sides`).
        draw: (m,) float32, w_popularity * log(1 + base_popularity) / 10.
        edges: (N_TIME_SLOTS + 1,) where each slot's places begin in `ids`.
    """

    number: int
    ids: Ints
    traits: Floats
    draw: Floats
    edges: Ints

    @classmethod
    def of(cls, config: WorldConfig, places: Places, number: int, ids: Ints) -> "City":
        """A city of some places (m,)."""
        ids = ids[np.argsort(places.slot[ids], kind="stable")]
        area, band = places.neighborhood[ids, None], places.price_band[ids, None]
        traits = (
            unit(places.tags[ids]), places.categories[ids], area == np.arange(config.neighborhoods), band == _BANDS,
        )  # fmt: skip
        return cls(
            number=number,
            ids=ids,
            traits=np.ascontiguousarray(np.concatenate(traits, axis=1, dtype=np.float32).T),
            draw=(config.numbers.w_popularity * np.log1p(places.popularity[ids]) / 10).astype(np.float32),
            edges=np.searchsorted(places.slot[ids], np.arange(N_TIME_SLOTS + 1)),
        )

    def taste(self, who: Tastes, numbers: Parameters) -> Floats:
        """(R, m) float32: the score without popularity."""
        taste: Floats = who.sides(numbers) @ self.traits
        return taste

    def likings(self, config: WorldConfig, users: Ints) -> Floats:
        """(R, m) float32: each user's lasting, unexplained liking of each place, in score units.

        Keyed by user and city: the same whatever else is drawn, in whatever order.
        """
        out = np.empty((len(users), len(self.ids)), dtype=np.float32)
        rngs = Streams(config.seed, Stream.LIKINGS)
        for row, user in enumerate(users.tolist()):
            rngs.of(user * _CITY_STRIDE + self.number).standard_normal(out=out[row], dtype=np.float32)
        out *= config.numbers.noise
        return out


def make_cities(config: WorldConfig, places: Places) -> list[City]:
    """One `City` for each city of the world; some may be empty."""
    return [City.of(config, places, c, np.flatnonzero(places.city == c)) for c in range(config.cities)]


def pair_taste(config: WorldConfig, users: Users, places: Places, user: Ints, place: Ints, moment: Ints) -> Floats:
    """The taste of single pairs, without lasting likings.

    Args:
        user, place: (B,) ids.
        moment: (B,) microseconds since 1970; tastes drift.

    Returns:
        (B,) float32.
    """
    numbers = config.numbers
    seasons, taste = season_of(config, moment), np.zeros(len(user), dtype=np.float32)
    for season in np.unique(seasons).tolist():
        at = np.flatnonzero(seasons == season)
        p = place[at]
        home = (users.city[user[at]] == places.city[p]) | (config.preset == "seed")  # the seed compares all numbers
        who = Tastes.of(config, users, user[at], season).visiting(home)
        score = numbers.w_interest * np.einsum("ij,ij->i", who.fine, unit(places.tags[p]))
        score += numbers.w_category * np.einsum("ij,ij->i", who.cat, places.categories[p])
        score += numbers.w_location * who.area[np.arange(len(at)), places.neighborhood[p]]
        taste[at] = score - numbers.price_aversion * np.maximum(places.price_band[p] - who.means, 0.0)
    return taste


def season_of(config: WorldConfig, moment: Ints) -> Ints:
    """(B,) season of moments (B,) within the horizon, in microseconds since 1970."""
    seasons: Ints = (moment - config.start_us) // (SEASON_WEEKS * 7 * _DAY_US)
    return seasons


class Sampler:
    """Draws places of one city for many (row, slot) at once, with probability exp(score / T) * slot factor.

    Places are sorted by typical slot, so a draw takes two steps: the typical slot, then a place within its run of the
    cumulative sum. One cumulative sum serves all rows and slots.
    """

    def __init__(self, logits: Floats, city: City, slot_weight: float) -> None:
        """Prepare rows.

        Args:
            logits: (R, m) float32 score / temperature; used up.
            city: its places.
            slot_weight: log of the factor for a place in its typical slot.
        """
        logits -= logits.max(axis=1, keepdims=True)
        mass = np.exp(logits, out=logits)
        rows, self._width = logits.shape
        self._edges, self._half = city.edges, (rows + 1) // 2
        self._longest = int(np.diff(city.edges).max())
        # A running sum through many rows is one ascending array: one search for all their draws. It is two sums, the
        # parts of a complex one: an addition waits for the one before it, and so the two wait together.
        cells = self._half * self._width
        sums = np.empty(cells + self._longest, dtype=np.complex128)
        both = sums[:cells].reshape(self._half, self._width)
        both.real, both.imag[: rows - self._half], both.imag[rows - self._half :] = (
            mass[: self._half],
            mass[self._half :],
            0,
        )
        np.cumsum(sums[:cells], out=sums[:cells])
        self._ladder = sums.view(np.float64)
        self._ladder[2 * cells :] = np.inf  # where a search looks that begins near the end
        part, row = np.divmod(np.arange(rows)[:, None], self._half)
        rungs = row * self._width + city.edges - 1
        ends = np.where(rungs >= 0, self._ladder[2 * rungs + part], 0.0)
        self._low, self._share = np.ascontiguousarray(ends[:, :-1]), np.diff(ends, axis=1)
        # The same over typical slots, a rung for each (row, slot of the moment).
        kinds = np.cumsum(self._share[:, None, :] * slot_factor(slot_weight)[None, :, :], axis=2).reshape(
            -1, N_TIME_SLOTS
        )
        kinds /= kinds[:, -1:].copy()
        self._kinds = np.ascontiguousarray((kinds + np.arange(len(kinds))[:, None])[:, :-1].T)

    def draw(self, rng: np.random.Generator, row: Ints, slot: Ints) -> Ints:
        """Draw one place for each (row, slot).

        Args:
            row, slot: (B,) positions of `logits` rows, and time slots.

        Returns:
            (B,) position in `city.ids`.
        """
        rung = row * N_TIME_SLOTS + slot
        aim, kind = rung + rng.random(len(row)), np.zeros(len(row), dtype=np.int64)
        for rungs in self._kinds:  # a few comparisons are much faster than a search
            kind += rungs[rung] <= aim
        at = row * N_TIME_SLOTS + kind
        within = self._low.ravel()[at] + rng.random(len(row)) * self._share.ravel()[at]
        part = row >= self._half
        begin = 2 * (row - part * self._half) * self._width + part
        found = (self._search(begin + 2 * self._edges[kind], within) - begin) >> 1
        # Rounding at the rim of a run must not reach into the next one.
        return np.asarray(np.clip(found, self._edges[kind], self._edges[kind + 1] - 1))

    def _search(self, at: Ints, within: npt.NDArray[np.float64]) -> Ints:
        # The first rung of a run (B,) above a number (B,), all at once, by halves: as many looks as a run needs, not as
        # the whole ladder, and no branch to guess wrong. Half of `searchsorted`'s time. Rungs lie two apart.
        for step in (1 << n for n in range(self._longest.bit_length(), 0, -1)):
            at = at + (self._ladder.take(at + (step - 2), mode="clip") <= within) * step
        return at


def alive(places: Places, place: Ints, moment: Ints) -> Floats:
    """How much of its full draw a place has at a moment: openings, trends and fadings.

    Args:
        place: (B,) ids.
        moment: (B,) microseconds since 1970.

    Returns:
        (B,) float32 in [0, 1]; 0 before the place opens. A stable place has 0.6, so that there is room above it.
    """
    level = np.full(len(place), 0.6, dtype=np.float32)
    for kind in (TRENDING, FADING):
        at = np.flatnonzero(places.trend[place] == kind)
        days = (moment[at] - places.peak[place[at]]) / _DAY_US
        if kind == TRENDING:
            level[at] = 0.25 + 0.75 * np.exp(-0.5 * (days / 12.0) ** 2)
        else:
            level[at] = 0.1 + 0.8 / (1.0 + np.exp(days / 6.0))
    late = np.flatnonzero((places.opened > places.opened.min())[place])
    age = (moment[late] - places.opened[place[late]]) / _DAY_US
    level[late] = np.where(age < 0, 0.0, 0.6 + 0.4 * np.exp(-np.maximum(age, 0.0) / 14.0))
    return level
