"""What world to make: its size, its seed, and the numbers in its formulas.

`PRESETS["seed"]` holds the seed document's own parameters (section 7.1); `PRESETS["city"]` keeps its terms (interest,
category, area, popularity) and is calibrated so that there is something to learn.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from recsys.constants import N_CITIES, N_NEIGHBORHOODS_PER_CITY, N_PLACES, N_USERS
from recsys.errors import ConfigError
from recsys.world.names import CITY_NAMES, NEIGHBORHOOD_NAMES

# Goes up whenever the same configuration gives other tables than before, by more than last digits: those are the
# processor's, whose instructions BLAS chooses by.
GENERATOR_VERSION: Final = 3


def _require(ok: bool, field: str, allowed: str, got: object) -> None:
    if not ok:
        raise ConfigError(f"{field} must be {allowed} (got {got!r})")


def _range(field: str, value: tuple[float, float], low: float = 0.0) -> None:
    ok = len(value) == 2 and all(math.isfinite(v) for v in value) and low <= value[0] <= value[1]
    _require(ok, field, f"a pair (low, high) with {low:g} <= low <= high", value)


@dataclass(frozen=True)
class Parameters:
    """The numbers in the formulas; see the functions that use them.

    Attributes:
        alpha_cat, alpha_fine_base, alpha_fine, alpha_area: Dirichlet concentrations.
        sessions_per_week, views_per_session, likes_per_session, saves_per_session, attends_per_month: uniform ranges of
            the users' behaviour.
        views_scale: interactions per view of a session (the seed scales down by 10).
        w_interest, w_category, w_location, w_popularity: weights of the preference score; they sum to 1.
        price_aversion: score units that a place loses for each price band above a user's means.
        drift: share of the tastes that has turned into others by the end, of a user who is there from the start.
        noise: standard deviation of a pair's lasting, unexplained liking, in score units.
        temperature: of the softmax over a city's places, in score units.
        popularity_sigma: of the log-normal base popularity.
        travel: share of users (`seed`) or of weeks (`city`) spent outside the home city.
        late: share of users, and of places, that are first seen after `late_from` of the horizon.
        late_from: fraction of the horizon, the earliest late arrival.
        slot_weight: log of how much more a place is visited in its typical time slot.
        trending: share of places that trend at some time, and share that fade.
        chance_return: of n repeats that chance alone would give, chance_return * n**0.7 come about.
        revisit: probability that a fully liked place is visited again.
        affinity_center, affinity_width: the taste score at which engagement is half of its maximum, and its slope.
        attend_base: probability of attending at full affinity.
        similarity_threshold, top_k: social edges are the `top_k` most alike of the same city, from this cosine on.
        group_share: groups of friends per user; 0: nobody goes out together on purpose.
        outings: mean outings of a group in the horizon.
        join: probability that a member comes along.
        negatives_per_positive: friend labels of class 0 for each of class 1.
        attend_scale: label_attend is 1 with probability scale * overlap * (1 + co_attendance / 10), at most 0.95.
    """

    alpha_cat: float = 1.2
    alpha_fine_base: float = 0.1
    alpha_fine: float = 5.0
    alpha_area: float = 3.0
    sessions_per_week: tuple[float, float] = (1.0, 8.0)
    views_per_session: tuple[float, float] = (10.0, 80.0)
    likes_per_session: tuple[float, float] = (0.5, 5.0)
    saves_per_session: tuple[float, float] = (0.2, 3.0)
    attends_per_month: tuple[float, float] = (1.0, 12.0)
    views_scale: float = 1.38
    w_interest: float = 0.365
    w_category: float = 0.14
    w_location: float = 0.09
    w_popularity: float = 0.405
    price_aversion: float = 0.02
    drift: float = 0.4
    noise: float = 0.028
    temperature: float = 0.0235
    popularity_sigma: float = 1.2
    travel: float = 0.05
    late: float = 0.12
    late_from: float = 0.5
    slot_weight: float = 1.6
    trending: float = 0.12
    chance_return: float = 0.165
    revisit: float = 0.08
    affinity_center: float = 0.15
    affinity_width: float = 0.05
    attend_base: float = 0.034
    similarity_threshold: float = 0.3
    top_k: int = 25
    group_share: float = 0.5
    outings: float = 5.5
    join: float = 0.75
    negatives_per_positive: float = 1.0
    attend_scale: float = 0.75

    def __post_init__(self) -> None:
        for name in ("alpha_cat", "alpha_fine_base", "alpha_fine", "alpha_area", "views_scale", "temperature",
                     "popularity_sigma", "affinity_width"):  # fmt: skip
            value = getattr(self, name)
            _require(math.isfinite(value) and value > 0, name, "a finite number > 0", value)
        for name in ("price_aversion", "noise", "slot_weight", "group_share", "outings", "negatives_per_positive",
                     "attend_scale"):  # fmt: skip
            value = getattr(self, name)
            _require(math.isfinite(value) and value >= 0, name, "a finite number >= 0", value)
        for name in ("drift", "travel", "late", "late_from", "chance_return", "revisit", "attend_base", "join"):
            _require(0 <= getattr(self, name) <= 1, name, "from 0 to 1", getattr(self, name))
        _require(0 <= self.trending <= 0.5, "trending", "from 0 to 0.5", self.trending)
        _require(0 <= self.similarity_threshold <= 1, "similarity_threshold", "from 0 to 1", self.similarity_threshold)
        _require(math.isfinite(self.affinity_center), "affinity_center", "a finite number", self.affinity_center)
        _require(self.top_k >= 1, "top_k", ">= 1", self.top_k)
        for name in ("sessions_per_week", "views_per_session"):
            _range(name, getattr(self, name), low=0.1)
        for name in ("likes_per_session", "saves_per_session", "attends_per_month"):
            _range(name, getattr(self, name))
        weights = (self.w_interest, self.w_category, self.w_location, self.w_popularity)
        ok = all(w >= 0 for w in weights) and math.isclose(sum(weights), 1.0, abs_tol=1e-6)
        _require(ok, "w_interest, w_category, w_location, w_popularity", ">= 0 and sum to 1", weights)


PRESETS: Final[Mapping[str, Parameters]] = {
    "city": Parameters(),
    "seed": Parameters(
        alpha_cat=2.0, views_scale=0.1,
        w_interest=0.4, w_category=0.3, w_location=0.2, w_popularity=0.1, price_aversion=0.0, drift=0.0, noise=0.1,
        temperature=1.0, popularity_sigma=1.0, travel=0.1, late=0.0, trending=0.0, top_k=50, group_share=0.0,
        negatives_per_positive=0.2,
    ),
}  # fmt: skip

SEASON_WEEKS: Final = 4

# City sizes differ, as they do: fixed for `city`; `seed` draws them from a Dirichlet(2), as its document does.
CITY_SHARES: Final = (0.28, 0.20, 0.14, 0.11, 0.09, 0.07, 0.06, 0.05)


@dataclass(frozen=True)
class WorldConfig:
    """One world. The same configuration gives byte-identical tables.

    Attributes:
        preset: "city" (default) or "seed".
        users, places: how many, at least 1.
        seed: of every random stream, 0 to 2**63 - 1.
        start: beginning of the horizon, a Monday at midnight UTC.
        weeks: length of the horizon; it is half-open, [start, end).
        cities, neighborhoods: how many cities, and neighbourhoods in each.
        city_weights: share of users and places of each city; None: the preset's.
        parameters: numbers of the formulas; None: the preset's.

    Raises:
        ConfigError: a field is out of its range; the message names the field, the range and what was given.
    """

    preset: str = "city"
    users: int = N_USERS
    places: int = N_PLACES
    seed: int = 42
    start: datetime = datetime(2024, 1, 1, tzinfo=UTC)
    weeks: int = 12
    cities: int = N_CITIES
    neighborhoods: int = N_NEIGHBORHOODS_PER_CITY
    city_weights: tuple[float, ...] | None = None
    parameters: Parameters | None = None

    def __post_init__(self) -> None:
        _require(self.preset in PRESETS, "preset", "one of " + ", ".join(sorted(PRESETS)), self.preset)
        _require(self.users >= 1, "users", ">= 1", self.users)
        _require(self.places >= 1, "places", ">= 1", self.places)
        _require(0 <= self.seed < 2**63, "seed", "from 0 to 2**63 - 1", self.seed)
        _require(1 <= self.weeks <= 520, "weeks", "from 1 to 520", self.weeks)
        _require(1 <= self.cities <= len(CITY_NAMES), "cities", f"from 1 to {len(CITY_NAMES)}", self.cities)
        most = len(NEIGHBORHOOD_NAMES) // self.cities
        _require(
            1 <= self.neighborhoods <= most,
            "neighborhoods",
            f"from 1 to {most}: there are {len(NEIGHBORHOOD_NAMES)} names for {self.cities} cities",
            self.neighborhoods,
        )
        start = self.start
        monday = start.tzinfo is not None and start.utcoffset() == timedelta(0) and start.weekday() == 0
        at_midnight = (start.hour, start.minute, start.second, start.microsecond) == (0, 0, 0, 0)
        _require(monday and at_midnight, "start", "a Monday at midnight UTC", start.isoformat())
        if self.city_weights is not None:
            weights = self.city_weights
            ok = len(weights) == self.cities and all(math.isfinite(w) and w > 0 for w in weights)
            ok = ok and math.isclose(sum(weights), 1.0, abs_tol=1e-6)
            _require(ok, "city_weights", f"{self.cities} numbers > 0 that sum to 1", weights)

    @property
    def numbers(self) -> Parameters:
        """The parameters in force."""
        return self.parameters or PRESETS[self.preset]

    @property
    def seasons(self) -> int:
        """How many seasons of `SEASON_WEEKS` the horizon has; tastes hold still within one."""
        return math.ceil(self.weeks / SEASON_WEEKS)

    def turned(self, season: int | npt.NDArray[np.int64], since: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(N,) how far tastes have moved by a season, or by one each (N,), from what they were in earlier ones (N,).

        0 until then, and `drift` from the first season to the last.
        """
        moved: npt.NDArray[np.float64] = self.numbers.drift * np.maximum(season - since, 0) / max(self.seasons - 1, 1)
        return moved

    @property
    def end(self) -> datetime:
        """The first moment after the horizon."""
        return self.start + timedelta(weeks=self.weeks)

    @property
    def start_us(self) -> int:
        """`start` in microseconds since 1970."""
        return int(self.start.timestamp()) * 1_000_000

    @property
    def end_us(self) -> int:
        """`end` in microseconds since 1970."""
        return int(self.end.timestamp()) * 1_000_000

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, with the parameters in force."""
        return asdict(self) | {"start": self.start.isoformat(), "parameters": asdict(self.numbers)}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Self:
        """Back from JSON."""
        pairs: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in said["parameters"].items()}
        weights = said["city_weights"]
        return cls(
            **{
                **said,
                "start": datetime.fromisoformat(said["start"]),
                "city_weights": None if weights is None else tuple(weights),
                "parameters": Parameters(**pairs),
            }
        )

    def source(self) -> dict[str, Any]:
        """What `source.json` says about a data set made from this configuration."""
        content = f"{GENERATOR_VERSION} {json.dumps(self.to_dict(), sort_keys=True)}"
        return {
            "synthetic": True,
            "preset": self.preset,
            "seed": self.seed,
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "users": self.users,
            "places": self.places,
            "cities": self.cities,
            "neighborhoods": self.neighborhoods,
            "config": hashlib.sha256(content.encode()).hexdigest(),
        }
