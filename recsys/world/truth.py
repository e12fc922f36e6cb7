"""The truth of a synthetic world: what no model is told, and so the best that any model could do.

`generate` writes it beside the data. Nothing that makes features, trains or serves may import this module or read its
files; only jobs that make worlds and measure models do.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.atomic import replacing, write_json
from recsys.constants import N_TIME_SLOTS, POSITIVE_RATING, SLOT_BY_DAY_AND_TIME
from recsys.errors import DataError, NotReady
from recsys.world.config import GENERATOR_VERSION, SEASON_WEEKS, WorldConfig
from recsys.world.interactions import DAY_US, affinity, engagement, slots
from recsys.world.places import Floats, Ints, Places, make_places
from recsys.world.scoring import SLOT_FIT, City, Tastes, alive, make_cities, pair_taste, slot_factor
from recsys.world.social import Labels
from recsys.world.users import Users, make_users

Doubles = npt.NDArray[np.float64]

FOLDER: Final = "truth"
_WORLD: Final = "world.json"
_LABELS: Final = "friend_labels.parquet"
_HALVES: Final = (1, 2, 1, 4)  # of a point of the rating, for a like, a save, a share and attending
_BY_STAY: Final = 2.0  # points of the rating that the longest stay is worth
_IN_CACHE: Final = 1 << 13  # pairs at once: what is known of them stays in a core's cache


@dataclass(frozen=True)
class Truth:
    """Scores by the formulas that made the data.

    Attributes:
        config: of the world.
        places, users: with what only the generator knows of them.
    """

    config: WorldConfig
    places: Places
    users: Users

    @classmethod
    def of(cls, config: WorldConfig) -> Self:
        """The truth of a configuration."""
        return cls(config, make_places(config), make_users(config))

    @classmethod
    def open(cls, landing: Path) -> Self:
        """The truth that `generate` left beside the tables of a folder.

        Raises:
            NotReady: there is none: these are not tables of a synthetic world.
            DataError: another version of the generator made it.
        """
        path = landing / FOLDER / _WORLD
        if not path.exists():
            raise NotReady(f"no truth is known of these data (looked for {path})")
        said = json.loads(path.read_text(encoding="utf-8"))
        if said["generator"] != GENERATOR_VERSION:
            raise DataError(
                f"{path.name}: this is version {GENERATOR_VERSION} of the generator (got {said['generator']}): "
                "make the world again with `recsys generate --force`"
            )
        return cls.of(WorldConfig.from_dict(said["config"]))

    @cached_property
    def cities(self) -> list[City]:
        """The places of each city."""
        return make_cities(self.config, self.places)

    @cached_property
    def _slot_shares(self) -> Doubles:
        """(N, N_TIME_SLOTS) share of each user's sessions by time slot."""
        shares = np.zeros((len(self.users), N_TIME_SLOTS))
        for cell, slot in enumerate(np.ravel(SLOT_BY_DAY_AND_TIME)):
            shares[:, slot] += self.users.rhythm[:, cell]
        return shares

    def utility(self, user: Ints, place: Ints, moment: Ints) -> Doubles:
        """Log of the rate at which users are drawn to places at a moment, up to a constant of the user's.

        Lasting likings, which no formula explains, are left out. In `seed` neither the moment nor the place's life
        matters; in `city` a place that is not open has -inf.

        Args:
            user, place: (B,) ids.
            moment: (B,) microseconds since 1970, within the horizon.

        Returns:
            (B,) float64.
        """
        numbers = self.config.numbers
        draw = numbers.w_popularity * np.log1p(self.places.popularity[place].astype(np.float64)) / 10
        score = pair_taste(self.config, self.users, self.places, user, place, moment) + draw
        if self.config.preset == "seed":
            return np.asarray(np.maximum(score, 0.0) / numbers.temperature)
        with np.errstate(divide="ignore"):
            life = np.log(alive(self.places, place, moment).astype(np.float64))
        fit = SLOT_FIT[slots(moment), self.places.slot[place]]
        return np.asarray(score / numbers.temperature + numbers.slot_weight * fit + life)

    def shares(
        self, users: Ints, city: City, window: tuple[int, int] | None = None, *, slot: int | None = None,
        likings: bool | npt.NDArray[np.bool_] = False, positive: bool = False,
    ) -> Doubles:  # fmt: skip
        """How a user's views in a city fall on its places, by what is known before any of them happens.

        Args:
            users: (B,) ids.
            city: one of `cities`.
            window: [start, end) in microseconds since 1970; None: the whole horizon.
            slot: the time slot of the views; None: whenever the user goes out.
            likings: with the lasting likings that no formula explains; (B, m): of these places alone, while the others
                draw as theirs do on average.
            positive: count only views that come to a rating from POSITIVE_RATING on.

        Returns:
            (B, m) float64 in [0, 1], places in the order of `city.ids`. `seed` knows no slots and no life of places.
        """
        config, numbers = self.config, self.config.numbers
        start, end = window or (config.start_us, config.end_us)
        faithful = config.preset == "seed"
        home = np.full(len(users), True) if faithful else self.users.city[users] == city.number
        extra = np.zeros((), dtype=np.float32) if likings is False else city.likings(config, users)
        if isinstance(likings, np.ndarray):  # the mean of exp(liking / temperature), as a liking
            extra = np.where(likings, extra, np.float32(numbers.noise**2 / (2 * numbers.temperature)))
        out = np.zeros((len(users), len(city.ids)))
        for season, share in self._seasons(start, end):
            liking = city.taste(Tastes.of(config, self.users, users, season).visiting(home), numbers) + extra
            score = liking + city.draw
            if faithful:
                mass = np.exp(np.maximum(score, 0.0).astype(np.float64) / numbers.temperature)
                out += share * mass / mass.sum(axis=1, keepdims=True)
                continue
            mass = np.exp((score - score.max(axis=1, keepdims=True)).astype(np.float64) / numbers.temperature)
            factor = slot_factor(numbers.slot_weight)
            sums = np.concatenate([np.zeros((len(mass), 1)), np.cumsum(mass, axis=1)], axis=1)
            by_kind = np.diff(sums[:, city.edges], axis=1)
            weights = self._slot_shares[users] if slot is None else np.eye(N_TIME_SLOTS)[[slot] * len(users)]
            # (B, kind): by which factor a place of that typical slot gains over its mass, over the user's slots
            gain = (weights / (by_kind @ factor.T)) @ factor
            kinds = self.places.slot[city.ids]
            drawn = mass * gain[:, kinds]
            if positive:
                drawn *= self._likely_positive(users, city, liking)
            out += share * drawn
        return out if faithful else out * self._life(city, start, end)

    def _seasons(self, start: int, end: int) -> list[tuple[int, float]]:
        """Seasons that a window touches, and the share of it in each."""
        length = SEASON_WEEKS * 7 * DAY_US
        edges = self.config.start_us + length * np.arange(self.config.seasons + 1)
        inside = np.minimum(edges[1:], end) - np.maximum(edges[:-1], start)
        return [(int(s), float(inside[s] / (end - start))) for s in np.flatnonzero(inside > 0)]

    def _life(self, city: City, start: int, end: int) -> Doubles:
        """(m,) mean of `alive` over a window, day by day."""
        days = np.arange(start + DAY_US // 2, max(end, start + DAY_US), DAY_US)
        there = [alive(self.places, city.ids, np.full(len(city.ids), day)) for day in days.tolist()]
        return np.asarray(np.mean(there, axis=0, dtype=np.float64))

    def _likely_positive(self, users: Ints, city: City, liking: Floats) -> Doubles:
        """(B, m) probability that a view turns out a positive: over all ways to get there."""
        out = np.empty(liking.shape)
        step = max(1, _IN_CACHE // max(len(city.ids), 1))
        for start in range(0, len(users), step):
            rows = slice(start, start + step)
            liked = affinity(self.config, liking[rows], np.full(1, 0.75))
            chances = engagement(self.config, self.users, self.places, users[rows, None], city.ids, liked)
            # by what it comes to, in halves of a point: how probable
            odds, ways = np.zeros((1 + sum(_HALVES), *liked.shape)), 1
            odds[0] = 1.0
            for chance, worth in zip(chances, _HALVES, strict=True):
                happened = odds[:ways] * chance
                odds[:ways] -= happened
                odds[worth : worth + ways] += happened
                ways += worth
            # how often a stay, which is exponential, is worth what is missing: the more often by each half point less
            total, reached = np.zeros(liked.shape), np.exp((30.0 + 200.0 * liked - 150.0 * _BY_STAY) / 50.0)
            for weight in odds[round(2 * (POSITIVE_RATING - 1.0 - _BY_STAY)) :]:
                total += weight * np.minimum(reached, 1.0)
                reached *= np.exp(75.0 / 50.0)
            out[rows] = total
        return out


def write_truth(landing: Path, config: WorldConfig, labels: Labels) -> None:
    """Leave the truth beside the tables: what made the world, and each friend label's probability."""
    folder = landing / FOLDER
    columns = {"user_u": labels.u, "user_v": labels.v, "p_compat": labels.compat.astype(np.float64)}
    table = pa.table({**columns, "p_attend": labels.p_attend})
    with replacing(folder / _LABELS) as aside:
        pq.write_table(table, aside, compression="zstd")
    write_json(folder / _WORLD, {"generator": GENERATOR_VERSION, "config": config.to_dict()})


def friend_probabilities(landing: Path) -> dict[str, npt.NDArray[Any]]:
    """Of every friend label: user_u, user_v (L,) int64 ascending, p_compat, p_attend (L,) float64.

    Raises:
        NotReady: no truth is known.
    """
    path = landing / FOLDER / _LABELS
    if not path.exists():
        raise NotReady(f"no truth is known of these data (looked for {path})")
    table = pq.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}
