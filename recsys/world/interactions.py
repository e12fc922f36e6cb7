"""Interactions of preset `city`: sessions in time, places by preference and moment, visits again, trips.

A block of users at a time. Proposals are drawn from the softmax of the preference score and thinned by what the place
is at that moment (`scoring.alive`), which makes each user's events an inhomogeneous Poisson process (Lewis & Shedler,
"Simulation of nonhomogeneous Poisson processes by thinning", 1979).
"""

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

from recsys.constants import SLOT_BY_DAY_AND_TIME, TIME_OF_DAY_BY_HOUR
from recsys.schemas import implicit_rating
from recsys.world.config import WorldConfig
from recsys.world.places import Floats, Ints, Places
from recsys.world.scoring import SLOT_FIT, City, Sampler, Tastes, alive, pair_taste, season_of
from recsys.world.streams import Stream, choose_rows, stream
from recsys.world.users import Users

Counts = npt.NDArray[np.int32]

HOUR_US: Final = 3_600_000_000
DAY_US: Final = 24 * HOUR_US
WEEK_US: Final = 7 * DAY_US

# Share of each time of day's sessions by hour, from its first hour on (morning 6, afternoon 12, evening 18, night 0).
_HOURS: Final = np.array(
    [
        [0.06, 0.12, 0.19, 0.22, 0.21, 0.20],
        [0.20, 0.16, 0.13, 0.13, 0.16, 0.22],
        [0.16, 0.21, 0.22, 0.19, 0.13, 0.09],
        [0.40, 0.27, 0.17, 0.09, 0.04, 0.03],
    ]
)
_FIRST_HOUR: Final = np.array([6, 12, 18, 0])
_GAP_US: Final = 3 * 60 * 1_000_000  # mean time between the views of a session
_WEARS_OFF: Final = 0.7  # n repeats that chance alone would give count as n to this power
_WEEK: Final = np.arange(7 * 24)  # hours from Thursday on: 1970-01-01 was one
_TIME_OF_DAY: Final = np.array(TIME_OF_DAY_BY_HOUR)[_WEEK % 24]
_DAY_OF_WEEK: Final = ((_WEEK // 24 + 3) % 7 >= 5).astype(np.int64)
_SLOTS: Final = np.array(SLOT_BY_DAY_AND_TIME)[_DAY_OF_WEEK, _TIME_OF_DAY]


@dataclass(frozen=True)
class Events:
    """Some interactions, column by column; rows in order of (user, moment, place).

    Attributes:
        user, place: (E,) int64 ids.
        moment: (E,) int64, microseconds since 1970.
        dwell: (E,) float32, seconds.
        likes, saves, shares: (E,) int32.
        attended: (E,) bool.
    """

    user: Ints
    place: Ints
    moment: Ints
    dwell: Floats
    likes: Counts
    saves: Counts
    shares: Counts
    attended: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: npt.NDArray[np.integer | np.bool_]) -> "Events":
        """Some of the rows."""
        return Events(*(getattr(self, f.name)[rows] for f in fields(self)))

    @property
    def rating(self) -> Floats:
        """(E,) implicit rating."""
        return implicit_rating(self.dwell, self.likes, self.saves, self.shares, self.attended)


@dataclass(frozen=True)
class Outings:
    """Who of a group of friends was where: attendances that are already settled.

    Attributes:
        user: (A,) ids in ascending order.
        place: (A,) ids.
        moment: (A,) microseconds since 1970.
    """

    user: Ints
    place: Ints
    moment: Ints

    def of(self, start: int, stop: int) -> tuple[Ints, Ints, Ints]:
        """Those of users start to stop - 1."""
        low, high = np.searchsorted(self.user, [start, stop])
        return self.user[low:high], self.place[low:high], self.moment[low:high]


def buckets(moment: Ints) -> tuple[Ints, Ints]:
    """Time of day and day of week bucket of moments (E,), in microseconds since 1970."""
    hour = _hour_of_week(moment)
    return _TIME_OF_DAY[hour], _DAY_OF_WEEK[hour]


def slots(moment: Ints) -> Ints:
    """Time slot of moments (E,), in microseconds since 1970."""
    slot: Ints = _SLOTS[_hour_of_week(moment)]
    return slot


def _hour_of_week(moment: Ints) -> Ints:
    # NumPy divides by a number much faster than it finds a remainder
    hours = moment // HOUR_US
    return np.asarray(hours - hours // len(_WEEK) * len(_WEEK))


def in_order(events: Events) -> Events:
    """Sort by (user, moment, place) and keep one row of each."""
    if not len(events):
        return events
    # One sort of one number; the few at the same moment are put in order after it.
    since = events.moment - events.moment.min()
    key = events.user - events.user.min() << int(since.max()).bit_length() | since
    order = np.argsort(key)
    again = np.flatnonzero(np.diff(key[order]) == 0)
    tied = np.union1d(again, again + 1)
    rows = order[tied]
    order[tied] = rows = rows[np.lexsort((rows, events.place[rows], key[rows]))]
    same = (np.diff(key[rows]) == 0) & (np.diff(events.place[rows]) == 0)
    return events.take(np.delete(order, tied[1:][same]))


def _views(config: WorldConfig, users: Users, start: int, stop: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """When the users of a block look at something: user (B,), moment (B,), within the horizon, after they joined."""
    behavior = users.behavior[start:stop].astype(np.float64)
    session_user = np.repeat(np.arange(start, stop), rng.poisson(behavior[:, 0] * config.weeks))
    n = len(session_user)
    week = rng.integers(0, config.weeks, n)
    cell = choose_rows(rng, users.rhythm[session_user])
    weekend, time_of_day = cell >= 4, cell % 4
    day = np.where(weekend, rng.integers(5, 7, n), rng.integers(0, 5, n))
    hour = _FIRST_HOUR[time_of_day] + choose_rows(rng, _HOURS[time_of_day])
    begin = config.start_us + week * WEEK_US + day * DAY_US + hour * HOUR_US + rng.integers(0, HOUR_US, n)
    mean = behavior[session_user - start, 1] * config.numbers.views_scale
    count = 1 + rng.poisson(np.maximum(mean - 1.0, 0.0))
    gap = rng.exponential(_GAP_US, int(count.sum())).astype(np.int64) + 1
    # Running sum of the gaps within each session.
    running = np.cumsum(gap)
    first = np.cumsum(count) - count
    moment = np.repeat(begin - (running[first] - gap[first]), count) + running
    user = np.repeat(session_user, count)
    keep = (moment >= users.joined[user]) & (moment < config.end_us)
    return user[keep], moment[keep]


def _visits(
    config: WorldConfig, users: Users, places: Places, cities: list[City], user: Ints, moment: Ints,
    rng: np.random.Generator,
) -> tuple[Ints, Ints, Ints, Floats]:  # fmt: skip
    """A place for each view: user, moment, place and taste of those that come about."""
    numbers = config.numbers
    # Views of the same city and season are made together: one after another, in a sort that 16 bits make cheap.
    where, season = users.where[user, (moment - config.start_us) // WEEK_US], season_of(config, moment)
    group = where.astype(np.int16) * config.seasons + season.astype(np.int16)
    order = np.argsort(group, kind="stable")
    user, moment, season = user[order], moment[order], season[order]
    begins = np.searchsorted(group[order], np.arange(config.cities * config.seasons + 1))
    place, taste = np.full(len(user), -1), np.zeros(len(user), dtype=np.float32)
    for city in cities:
        first = city.number * config.seasons
        who = distinct(user[begins[first] : begins[first + config.seasons]])
        if not len(who) or not len(city.ids):
            continue
        likings, home = city.likings(config, who), users.city[who] == city.number
        # One product for all seasons: with few rows it is mostly preparation.
        here = slice(begins[first], begins[first + config.seasons])
        each = season[here] * len(who) + _positions(who, user[here])
        pairs = distinct(each)
        row, turn, rows = _positions(pairs, each), pairs // len(who), pairs % len(who)
        liking = city.taste(Tastes.of(config, users, who[rows], turn).visiting(home[rows]), numbers)
        rims = np.searchsorted(turn, np.arange(config.seasons + 1))
        for low, high, start, stop in zip(rims, rims[1:], begins[first:], begins[first + 1 :], strict=False):
            if low == high:
                continue
            liking[low:high] += likings[rows[low:high]]
            logits = liking[low:high] + city.draw
            logits *= np.float32(1 / numbers.temperature)
            at, row_at = slice(start, stop), row[start - here.start : stop - here.start]
            found = Sampler(logits, city, numbers.slot_weight).draw(rng, row_at - low, slots(moment[at]))
            place[at], taste[at] = city.ids[found], liking[row_at, found]
    keep = np.flatnonzero(place >= 0)
    keep = keep[rng.random(len(keep), dtype=np.float32) < alive(places, place[keep], moment[keep])]
    keep = keep[_fresh(numbers.chance_return, user[keep], place[keep], len(places), rng)]
    return user[keep], moment[keep], place[keep], taste[keep]


def _fresh(chance_return: float, user: Ints, place: Ints, n_places: int, rng: np.random.Generator) -> Ints:
    """Which views (V,) stay: people look for something new, so chance leads back to a place less and less often.

    Of the same pair's views a random one stays, wherever in time, so that the weeks stay alike. Going back on purpose
    comes later.
    """
    if not len(user):
        return np.zeros(0, dtype=np.int64)
    # One sort of one number: the pair in the high bits, chance in the low ones.
    pair = (user - user.min()) * n_places + place
    free = 62 - int(pair.max()).bit_length()
    order = np.argsort(pair << free | rng.integers(0, 1 << free, len(pair)))
    pair = pair[order]
    first = np.ones(len(pair), dtype=bool)
    first[1:] = pair[1:] != pair[:-1]
    at = np.arange(len(pair))
    repeat = at - np.maximum.accumulate(np.where(first, at, 0))
    powers = np.arange(int(repeat.max()) + 1) ** _WEARS_OFF
    again = chance_return * np.diff(powers, prepend=0.0)
    return np.asarray(order[first | (rng.random(len(pair)) < again[repeat])])


def distinct(user: Ints) -> Ints:
    """The distinct ones, ascending, of ids (B,) that lie close together: no sort."""
    if not len(user):
        return user
    low = int(user.min())
    return np.asarray(np.flatnonzero(np.bincount(user - low)) + low)


def _positions(ids: Ints, wanted: Ints) -> Ints:
    """(B,) position of each wanted id among ascending ids that lie close together."""
    position = np.zeros(int(ids[-1] - ids[0]) + 1, dtype=np.int64)
    position[ids - ids[0]] = np.arange(len(ids))
    return np.asarray(position[wanted - ids[0]])


def affinity(config: WorldConfig, taste: Floats, fit: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How much of a visit is enjoyed, 0 to 1: by taste, and a little by how well the moment suits.

    Args:
        taste: (E,) preference score without popularity.
        fit: (E,) `SLOT_FIT` of the moment and the place.
    """
    numbers = config.numbers
    x = (taste - numbers.affinity_center) / numbers.affinity_width + 0.8 * (fit - 0.5)
    enjoyed: npt.NDArray[np.float64] = 1.0 / (1.0 + np.exp(-x))
    return enjoyed


def engagement(
    config: WorldConfig, users: Users, places: Places, user: Ints, place: Ints, liked: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], ...]:
    """Probabilities (E,) of a like, a save, a share and of attending at visits liked so much (seed, section 7.4).

    Of a block of users (B, 1) and places (m,) liked (B, m) as well.

    They are the seed's, times how much this user does so and, for attending, how well the place converts.
    """
    numbers = config.numbers
    ranges = (numbers.likes_per_session, numbers.saves_per_session, numbers.attends_per_month)
    usual = [max(sum(r) / 2, 1e-9) for r in ranges]
    keen = users.behavior[user, 2:5] / np.array(usual)
    like, save = liked * 0.7 * keen[..., 0], liked * 0.4 * keen[..., 1]
    attend = liked * numbers.attend_base * keen[..., 2] * _converts(places, place)
    return tuple(np.minimum(0.95, p) for p in (like, save, liked * 0.2, attend))


def engage(
    config: WorldConfig, users: Users, places: Places, user: Ints, place: Ints, liked: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[Floats, Counts, Counts, Counts, npt.NDArray[np.bool_]]:  # fmt: skip
    """What people do at a visit they like so much: dwell, likes, saves, shares, attended."""
    n = len(user)
    dwell = np.clip(30.0 + liked * 200.0 + rng.exponential(50.0, n), 5.0, 600.0).astype(np.float32)
    like, save, share, attend = engagement(config, users, places, user, place, liked)
    likes, saves, shares = ((rng.random(n) < chance).astype(np.int32) for chance in (like, save, share))
    return dwell, likes, saves, shares, rng.random(n) < attend


def block_events(
    config: WorldConfig, users: Users, places: Places, cities: list[City], outings: Outings, block: int, start: int,
    stop: int,
) -> Events:  # fmt: skip
    """All interactions of users start to stop - 1.

    Args:
        block: number of the block, which keys its random stream.
    """
    numbers = config.numbers
    rng = stream(config.seed, Stream.INTERACTIONS, block)
    user, moment, place, taste = _visits(config, users, places, cities, *_views(config, users, start, stop, rng), rng)

    # Again, some days later at about the same time, where it was liked; not while the user is away from that city.
    fit = _fit(places, place, moment)
    loyal = numbers.revisit * affinity(config, taste, fit) * _converts(places, place)
    again = np.flatnonzero(rng.random(len(user)) < loyal)
    days = 1 + rng.exponential(9.0, len(again)).astype(np.int64)
    later = moment[again] + days * DAY_US + rng.integers(-HOUR_US // 2, HOUR_US // 2, len(again))
    inside = later < config.end_us
    again, later = again[inside], later[inside]
    here = users.where[user[again], (later - config.start_us) // WEEK_US] == places.city[place[again]]
    again, later = again[here], later[here]

    out_user, out_place, out_moment = outings.of(start, stop)
    out_taste = pair_taste(config, users, places, out_user, out_place, out_moment)

    user = np.concatenate([user, user[again], out_user])
    place = np.concatenate([place, place[again], out_place])
    moment = np.concatenate([moment, later, out_moment])
    taste = np.concatenate([taste, taste[again], out_taste])
    liked = affinity(config, taste, _fit(places, place, moment))
    dwell, likes, saves, shares, attended = engage(config, users, places, user, place, liked, rng)
    attended[len(attended) - len(out_user) :] = True
    return in_order(Events(user, place, moment, dwell, likes, saves, shares, attended))


def _converts(places: Places, place: Ints) -> Floats:
    # Places differ in how well they turn a look into a visit, and a visit into another one: 0.7 to 2.5.
    factor: Floats = 0.5 + np.minimum(places.conversion[place] * 4.0, 2.0)
    return factor


def _fit(places: Places, place: Ints, moment: Ints) -> npt.NDArray[np.float64]:
    fit: npt.NDArray[np.float64] = SLOT_FIT[slots(moment), places.slot[place]]
    return fit
