"""What is counted of an event: every counter twice, as SQL over a row of `interactions` and as a fold of one event.

The two are held together by `tests/integration/test_parity.py`. Layouts of the states that the counters fill stand here
too: history, fold, online store and Feast's field tags all read them from one place.
"""

from collections.abc import Callable
from ctypes import c_float
from dataclasses import dataclass
from datetime import timedelta
from math import log1p
from typing import Final

from recsys.constants import N_DAY_OF_WEEK, N_TIME_OF_DAY, POSITIVE_RATING

DAY_US: Final = 86_400_000_000
WINDOW_DAYS: Final = 28  # a state keeps the day of its last event and so many before it
RECENT_PLACES: Final = 50
# A pair's own history counts in ranking, and stays online, this long; after a longer silence it begins anew, so that
# what the online store has forgotten is never missed.
PAIR_TTL: Final = timedelta(days=28)


@dataclass(frozen=True, slots=True)
class Interaction:
    """One event, as a row of `interactions` holds it; floats are float32 values, as in the table.

    Attributes:
        at_us: microseconds since the epoch.
        rating: implicit rating, 1 to 5.
        seq: position in the event log, from 1; a state that was folded up to it takes it no second time.
    """

    user_id: int
    place_id: int
    at_us: int
    dwell_time: float
    num_likes: int
    num_saves: int
    num_shares: int
    attended: bool
    rating: float
    time_of_day: int
    day_of_week: int
    seq: int = 0


@dataclass(frozen=True)
class Counter:
    """A number that is summed over events.

    Attributes:
        name: stands in the state's layout.
        unit: of one event's share.
        sql: one event's share, over the columns of `interactions`, as a double.
        fold: the same of one event.
    """

    name: str
    unit: str
    sql: str
    fold: Callable[[Interaction], float]


def _single(name: str, unit: str, sql: str, fold: Callable[[Interaction], float]) -> Counter:
    """A share rounded to single precision: sums of such are exact in double, whatever their order."""
    return Counter(name, unit, f"({sql})::FLOAT::DOUBLE", lambda e: c_float(fold(e)).value)


def _time(i: int) -> Counter:
    return Counter(f"time_{i}", "events", f"(time_of_day_bucket = {i})::DOUBLE", lambda e: float(e.time_of_day == i))


def _weekday(i: int) -> Counter:
    return Counter(f"day_{i}", "events", f"(day_of_week_bucket = {i})::DOUBLE", lambda e: float(e.day_of_week == i))


_TIMES: Final = tuple(_time(i) for i in range(N_TIME_OF_DAY))
_LIKES: Final = Counter("likes", "likes", "num_likes::DOUBLE", lambda e: float(e.num_likes))
_SAVES: Final = Counter("saves", "saves", "num_saves::DOUBLE", lambda e: float(e.num_saves))
_ATTENDS: Final = Counter("attends", "visits", "attended::DOUBLE", lambda e: float(e.attended))
_RATING: Final = Counter("rating", "rating", "implicit_rating::DOUBLE", lambda e: e.rating)
_POSITIVES: Final = Counter(
    "positives",
    "events",
    f"(implicit_rating >= {POSITIVE_RATING})::DOUBLE",
    lambda e: float(e.rating >= POSITIVE_RATING),
)

USER_COUNTERS: Final = (*_TIMES, _LIKES, _SAVES, _ATTENDS, _RATING)
PLACE_COUNTERS: Final = (*_TIMES, _ATTENDS, _POSITIVES, _RATING)
# seed, section 3.2.3, of one interaction; a pair's edge is the mean of these so far
USER_PLACE: Final = (
    _single("rating", "of 5", "implicit_rating::DOUBLE / 5", lambda e: e.rating / 5),
    _single("dwell", "log", "least(ln(1 + dwell_time::DOUBLE) / 6, 1)", lambda e: min(log1p(e.dwell_time) / 6, 1.0)),
    _single("likes", "of 5", "least(num_likes / 5::DOUBLE, 1)", lambda e: min(e.num_likes / 5, 1.0)),
    _single("saves", "of 3", "least(num_saves / 3::DOUBLE, 1)", lambda e: min(e.num_saves / 3, 1.0)),
    _single("shares", "of 2", "least(num_shares / 2::DOUBLE, 1)", lambda e: min(e.num_shares / 2, 1.0)),
    Counter("attended", "visits", "attended::DOUBLE", lambda e: float(e.attended)),
    *_TIMES,
    *(_weekday(i) for i in range(N_DAY_OF_WEEK)),
)

# Layouts of the states. `seq`: the position in the event log up to which a state was folded; 0 in history.
ACTIVITY_HEAD: Final = ("seq", "last_at_us", "since_day")  # then, a day with events: ("day", *counters), oldest first
PAIR_HEAD: Final = ("seq", "count", "last_at_us")  # then the sums of USER_PLACE: since the last silence, or so far
TIE_STATE: Final = ("seq", "met", "interest_overlap", "same_neighborhood")
RECENT_HEAD: Final = ("seq",)  # then, an event: (place_id, at_us), newest first, at most RECENT_PLACES
