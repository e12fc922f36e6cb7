"""States → what the model reads, as of a moment: the same functions after a point-in-time join and an online read.

A window of w days holds the w whole days (UTC) before today and today so far: at a midnight, the moments that training
looks at, exactly the w days before it. Every feature lies in [0, 1]; scaling is part of its definition.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from recsys.aggregates.definitions import (
    ACTIVITY_HEAD,
    DAY_US,
    PAIR_HEAD,
    PAIR_TTL,
    PLACE_COUNTERS,
    TIE_STATE,
    USER_COUNTERS,
    USER_PLACE,
    WINDOW_DAYS,
    Counter,
)
from recsys.aggregates.states import Doubles, Ints, States
from recsys.constants import DAY_OF_WEEK_BUCKETS, TIME_OF_DAY_BUCKETS
from recsys.errors import DataError

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

ACTIVITY_TTL: Final = timedelta(days=90)  # who did nothing for so long is unknown
_RECENT_DAYS: Final = 7.0  # recency is exp(-age / this)
_SKEW_US: Final = 300_000_000  # how far the clocks of those who write events may be ahead of ours
_DAY: Final = timedelta(days=1)


class Windows:
    """What N users or places did in the days before a moment.

    Args:
        states: of one activity view.
        counters: what its tiles count.
        now_us: the moment, microseconds since the epoch.
    """

    def __init__(self, states: States, counters: tuple[Counter, ...], now_us: int) -> None:
        head, width = len(ACTIVITY_HEAD), len(counters) + 1
        lengths = states.lengths()
        if not (((lengths - head) % width == 0) & (lengths >= head) | (lengths == 0)).all():
            raise DataError(f"an activity state must have {head} + n x {width} values (got {lengths.max()})")
        there = lengths > 0
        heads = np.zeros((len(states), head))
        first = states.offsets[:-1][there]
        heads[there] = states.values[first[:, None] + np.arange(head)]
        is_tile = np.ones(len(states.values), dtype=bool)
        is_tile[(first[:, None] + np.arange(head)).ravel()] = False
        tiles = states.values[is_tile].reshape(-1, width)
        rows = np.where(there, (lengths - head) // width, 0)
        owner = np.repeat(np.arange(len(states)), rows)
        age = now_us // DAY_US - tiles[:, 0]
        self._age_days = (now_us - heads[:, 1]) / DAY_US
        self.known: Bools = there & (self._age_days >= -_SKEW_US / DAY_US) & (self._age_days <= ACTIVITY_TTL / _DAY)
        # a newcomer's days count from the day they appeared
        acted = now_us / DAY_US - heads[:, 2]
        self._names = {counter.name: i for i, counter in enumerate(counters)}
        parts = len(TIME_OF_DAY_BUCKETS)
        counts = np.concatenate([tiles[:, 1:], (tiles[:, 1 : 1 + parts] > 0).sum(axis=1, keepdims=True)], axis=1)
        # Tiles are sorted by day, so a window is the end of an owner's rows: the difference of two running sums
        running = np.concatenate([np.zeros((1, counts.shape[1])), np.cumsum(counts, axis=0)])
        stop = np.cumsum(rows)
        self._sums, self._views, self._days = dict[int, Doubles](), dict[int, Doubles](), dict[int, Doubles]()
        for days in (1, 7, WINDOW_DAYS):
            older = np.bincount(owner[age > days], minlength=len(states))
            self._sums[days] = running[stop] - running[stop - rows + older]
            self._views[days] = self._sums[days][:, :parts].sum(axis=1)
            self._days[days] = np.clip(acted, 1, days + now_us / DAY_US % 1)

    def sum(self, counter: str, days: int = WINDOW_DAYS) -> Doubles:
        """(N,) a counter's sum over a window."""
        return self._sums[days][:, self._names[counter]]

    def views(self, days: int = WINDOW_DAYS) -> Doubles:
        """(N,) events in a window."""
        return self._views[days]

    @property
    def sessions(self) -> Doubles:
        """(N,) parts of a day (morning, afternoon, evening, night) with at least one event, over 28 days."""
        return self._sums[WINDOW_DAYS][:, -1]

    def days(self, window: int = WINDOW_DAYS) -> Doubles:
        """(N,) days of a window on which somebody could act."""
        return self._days[window]

    def part(self, i: int) -> Doubles:
        """(N,) share of the events of 28 days that fell into a part of the day."""
        return self.sum(f"time_{i}") / np.maximum(self.views(), 1)

    @cached_property
    def trend(self) -> Doubles:
        """(N,) rate of the last week over itself plus that of 28 days: above a half, it rises; 0 without events."""
        week, month = self.views(7) / self.days(7), self.views() / self.days()
        out: Doubles = week / np.maximum(week + month, 1e-12)
        return out

    @property
    def recency(self) -> Doubles:
        """(N,) exp(-days since the last event, or since they appeared, / 7)."""
        return np.exp(-np.maximum(self._age_days, 0) / _RECENT_DAYS)


@dataclass(frozen=True)
class Feature:
    """One column of what the model reads.

    Attributes:
        name: as the model, the Feast tags and the documentation call it.
        about: what it is and its unit before scaling.
        of: windows → (N,), in [0, 1] after clipping.
    """

    name: str
    about: str
    of: Callable[[Windows], Doubles]


def _log(values: Doubles, scale: float) -> Doubles:
    out: Doubles = np.log1p(values) / scale
    return out


_PARTS: Final = tuple(
    Feature(part, f"share of 28 days' events in the {part}", lambda w, i=i: w.part(i))  # type: ignore[misc]
    for i, part in enumerate(TIME_OF_DAY_BUCKETS)
)
# seed, section 3.2.1: rates over fixed maxima; the first five are the behavior block of `user.x`
USER_FEATURES: Final = (
    Feature("sessions_per_week", "sessions a week / 10", lambda w: w.sessions * 7 / w.days() / 10),
    Feature("views_per_session", "events a session / 100", lambda w: w.views() / np.maximum(w.sessions, 1) / 100),
    Feature("likes_per_session", "likes a session / 10", lambda w: w.sum("likes") / np.maximum(w.sessions, 1) / 10),
    Feature("saves_per_session", "saves a session / 10", lambda w: w.sum("saves") / np.maximum(w.sessions, 1) / 10),
    Feature("attends_per_month", "visits in 30 days / 20", lambda w: w.sum("attends") * 30 / w.days() / 20),
    Feature("views_7d", "log events of 7 days / 6", lambda w: _log(w.views(7), 6)),
    Feature("views_28d", "log events of 28 days / 6", lambda w: _log(w.views(), 6)),
    Feature("mean_rating_28d", "mean rating / 5", lambda w: w.sum("rating") / np.maximum(w.views(), 1) / 5),
    Feature("views_1d", "log events of 1 day / 6", lambda w: _log(w.views(1), 6)),
    Feature("trend", "rate of 7 days over itself plus that of 28", lambda w: w.trend),
    Feature("recency", "exp(-days since the last event / 7)", lambda w: w.recency),
    *_PARTS,
)
# seed, section 3.2.2, totals replaced by rolling rates (amendment 10); the first four are the popularity block of
# `place.x`; conversion is smoothed by 20 views at 5 %
PLACE_FEATURES: Final = (
    Feature("popularity_28d", "log events a day / 5", lambda w: _log(w.views() / w.days(), 5)),
    Feature("daily_visits_28d", "log visits a day / 5", lambda w: _log(w.sum("attends") / w.days(), 5)),
    Feature("conversion_28d", "visits an event", lambda w: (w.sum("attends") + 1) / (w.views() + 20)),
    Feature("novelty", "1 / (1 + log events a day)", lambda w: 1 / (1 + np.log1p(w.views() / w.days()))),
    Feature("views_1d", "log events of 1 day / 6", lambda w: _log(w.views(1), 6)),
    Feature("views_7d", "log events of 7 days / 7", lambda w: _log(w.views(7), 7)),
    Feature("positives_28d", "log events rated 3.5 or more / 7", lambda w: _log(w.sum("positives"), 7)),
    Feature("mean_rating_28d", "mean rating / 5", lambda w: w.sum("rating") / np.maximum(w.views(), 1) / 5),
    Feature("attends_7d", "log visits of 7 days / 6", lambda w: _log(w.sum("attends", 7), 6)),
    Feature("trend", "rate of 7 days over itself plus that of 28", lambda w: w.trend),
    Feature("recency", "exp(-days since the last event / 7)", lambda w: w.recency),
    *_PARTS,
)

USER_ACTIVITY: Final = tuple(feature.name for feature in USER_FEATURES)
PLACE_ACTIVITY: Final = tuple(feature.name for feature in PLACE_FEATURES)
USER_USER: Final = ("interest_overlap", "co_attendance", "same_neighborhood")
# What the heads read online beside the embeddings: finished features, and whether they were known.
ONLINE_USER: Final = (*USER_ACTIVITY, "user_known")
ONLINE_PAIR: Final = (
    *(c.name for c in USER_PLACE[: -len(TIME_OF_DAY_BUCKETS) - len(DAY_OF_WEEK_BUCKETS)]),
    *TIME_OF_DAY_BUCKETS, *DAY_OF_WEEK_BUCKETS, "log_count", "recency", "pair_known",
)  # fmt: skip
ONLINE_TIE: Final = (*USER_USER, "tie_known")
ONLINE_PLACE: Final = (*PLACE_ACTIVITY, "place_known", *ONLINE_PAIR)
ONLINE_PEOPLE: Final = (*ONLINE_TIE, *ONLINE_USER)
D_ONLINE_PLACE: Final = len(ONLINE_PLACE)
D_ONLINE_PEOPLE: Final = len(ONLINE_PEOPLE)


def finish_users(states: States, now_us: int) -> Floats:
    """N states of `user_activity` → (N, D) float32 ONLINE_USER; zeros where unknown or older than ACTIVITY_TTL."""
    return _finish(Windows(states, USER_COUNTERS, now_us), USER_FEATURES)


def finish_places(states: States, now_us: int) -> Floats:
    """N states of `place_activity` → (N, D) float32 PLACE_ACTIVITY and the known flag, as for users."""
    return _finish(Windows(states, PLACE_COUNTERS, now_us), PLACE_FEATURES)


def _finish(windows: Windows, features: tuple[Feature, ...]) -> Floats:
    columns = np.stack([feature.of(windows) for feature in features], axis=1)
    out = np.empty((len(columns), len(features) + 1), dtype=np.float32)
    out[:, :-1] = np.where(windows.known[:, None], np.clip(columns, 0, 1), 0)
    out[:, -1] = windows.known
    return out


@dataclass(frozen=True)
class Pairs:
    """What users did at places, so far or since the last silence.

    Attributes:
        stats: (C, 12) float32 means of USER_PLACE; zeros where the pair is unknown.
        count: (C,) int64 interactions.
        age_days: (C,) float64 since the last one.
    """

    stats: Floats
    count: Ints
    age_days: Doubles


def pairs_of(states: States, now_us: int) -> Pairs:
    """C lists `so_far` or `state` of `user_place` → what the graph's edges, or ranking, read."""
    head = len(PAIR_HEAD)
    values, _ = states.matrix(head + len(USER_PLACE))
    count = values[:, 1].astype(np.int64)
    means = values[:, head:] / np.maximum(count, 1)[:, None]
    return Pairs(means.astype(np.float32), count, (now_us - values[:, 2]) / DAY_US)


def finish_pairs(pairs: Pairs) -> Floats:
    """(C, 15) float32 ONLINE_PAIR: means, log count, recency exp(-age / 7 days), known; zeros beyond PAIR_TTL."""
    age = pairs.age_days
    known = (pairs.count > 0) & (age >= -_SKEW_US / DAY_US) & (age <= PAIR_TTL / _DAY)
    out = np.zeros((len(known), len(ONLINE_PAIR)), dtype=np.float32)
    out[:, :-3] = pairs.stats
    out[:, -3] = np.minimum(np.log1p(pairs.count) / 4, 1)
    out[:, -2] = np.exp(-np.maximum(np.where(known, age, 0), 0) / _RECENT_DAYS)
    out[:, -1] = 1
    out[~known] = 0
    return out


def finish_ties(states: States) -> Floats:
    """N states of `user_user` → (N, 4) float32 ONLINE_TIE; a tie holds until it changes."""
    values, known = states.matrix(len(TIE_STATE))
    columns = [values[:, 2], np.minimum(values[:, 1] / 10, 1), values[:, 3], known]
    return np.stack(columns, axis=1).astype(np.float32)
