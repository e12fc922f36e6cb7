"""What is counted while interactions stream by, a block of users at a time."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recsys.constants import POSITIVE_RATING
from recsys.keys import unique
from recsys.world.config import WorldConfig
from recsys.world.interactions import HOUR_US, WEEK_US, Events
from recsys.world.places import Ints, Places
from recsys.world.users import Users

RATING_EDGES: Final = np.arange(1.0, 5.01, 0.25)
_SAMPLE: Final = 1_000  # users whose events are kept, to hold the truth against them
_UNSEEN: Final = np.iinfo(np.int64).max


class Tally:
    """Counts, the attendances that later stages need, and all events of an even sample of the users.

    Attributes:
        visits: (M,) interactions by place.
        by_hour: (7, 24) interactions by weekday, from Monday, and hour, UTC.
        by_week: (weeks,) interactions.
        by_city: (cities,) interactions in places of each city.
        ratings: interactions by rating, between `RATING_EDGES`, the last bin closed.
    """

    def __init__(self, config: WorldConfig, places: Places, users: Users) -> None:
        self._config, self._city_of_place, self._city_of_user = config, places.city, users.city
        self.visits = np.zeros(len(places), dtype=np.int64)
        self.by_hour = np.zeros((7, 24), dtype=np.int64)
        self.by_week = np.zeros(config.weeks, dtype=np.int64)
        self.by_city = np.zeros(config.cities, dtype=np.int64)
        self.ratings = np.zeros(len(RATING_EDGES) - 1, dtype=np.int64)
        self._rows = self._positives = self._repeats = self._away = 0
        self._first_of_user = np.full(len(users), _UNSEEN)
        self._first_of_place = np.full(len(places), _UNSEEN)
        self._attended: list[tuple[Ints, Ints, Ints]] = []
        self._every = max(1, len(users) // _SAMPLE)
        self._sample: list[tuple[Ints, Ints, Ints]] = []

    def add(self, events: Events) -> None:
        """Count a block, in which a user's events are complete."""
        user, place, moment, rating = events.user, events.place, events.moment, events.rating
        self._rows += len(events)
        self.visits += np.bincount(place, minlength=len(self.visits))
        hour = (moment // HOUR_US + 3 * 24) % (7 * 24)  # 1970-01-01 was a Thursday
        self.by_hour += np.bincount(hour, minlength=7 * 24).reshape(7, 24)
        self.by_week += np.bincount((moment - self._config.start_us) // WEEK_US, minlength=self._config.weeks)
        self.by_city += np.bincount(self._city_of_place[place], minlength=self._config.cities)
        bins = np.minimum(((rating - 1.0) * 4.0 + 1e-4).astype(np.int64), len(self.ratings) - 1)
        self.ratings += np.bincount(bins, minlength=len(self.ratings))
        self._positives += int((rating >= POSITIVE_RATING).sum())
        self._repeats += len(events) - len(unique(user * len(self.visits) + place))
        self._away += int((self._city_of_place[place] != self._city_of_user[user]).sum())
        np.minimum.at(self._first_of_place, place, moment)
        np.minimum.at(self._first_of_user, user, moment)
        came, kept = events.attended, user % self._every == 0
        self._attended.append((user[came], place[came], moment[came]))
        self._sample.append((user[kept], place[kept], moment[kept]))

    @property
    def attended(self) -> tuple[Ints, Ints, Ints]:
        """User, place and moment (A,) of every attendance."""
        return _joined(self._attended)

    @property
    def sample(self) -> tuple[Ints, Ints, Ints]:
        """User, place and moment (S,) of all interactions of every n-th user, users ascending."""
        return _joined(self._sample)

    def figures(self) -> dict[str, Any]:
        """Shares of the interactions."""
        rows = max(self._rows, 1)
        ordered = np.sort(self.visits)
        ranks = np.arange(1, len(ordered) + 1)
        gini = (2 * (ranks * ordered).sum() / (len(ordered) * rows)) - (len(ordered) + 1) / len(ordered)
        late = self._config.start_us + 2 * (self._config.end_us - self._config.start_us) // 3
        return {
            "interactions": self._rows,
            "gini_over_places": round(float(gini), 4),
            "positives_share": round(self._positives / rows, 4),
            "attended_share": round(len(self.attended[0]) / rows, 4),
            "repeat_share": round(self._repeats / rows, 4),
            "away_share": round(self._away / rows, 4),
            "late_users_share": round(_late(self._first_of_user, late), 4),
            "late_places_share": round(_late(self._first_of_place, late), 4),
        }


def _joined(parts: list[tuple[Ints, Ints, Ints]]) -> tuple[Ints, Ints, Ints]:
    user, place, moment = (np.concatenate(a) for a in zip(*parts, strict=True))
    return user, place, moment


def _late(first: npt.NDArray[np.int64], late: int) -> float:
    """Share, among those seen at all, of those first seen from a moment on."""
    seen = first[first < _UNSEEN]
    return float((seen >= late).mean()) if len(seen) else 0.0
