"""Groups of friends and their outings: what makes co-attendance mean something.

Differs from the seed, where `CO_ATTENDANCE_PROB` is never used and nobody meets but by accident.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt

from recsys.keys import order
from recsys.world.config import WorldConfig
from recsys.world.interactions import DAY_US, HOUR_US, WEEK_US, Outings, slots
from recsys.world.places import Floats, Ints, Places
from recsys.world.scoring import City, Sampler, Tastes, alive, season_of, unit
from recsys.world.streams import Stream, blocks, choose, stream
from recsys.world.users import Users

_MINUTE_US: Final = 60_000_000
# Groups meet in the evening, and in the day at weekends: (first hour, day of the week), weight.
_MEETINGS: Final = (
    *(((19, d), 1.0) for d in range(4)), ((19, 4), 3.0), ((13, 5), 1.5), ((20, 5), 3.0), ((12, 6), 2.0), ((18, 6), 1.0)
)  # fmt: skip
_GROUP: Final = 16  # columns whose maximum is found first
_SIZES: Final = np.array([0.0, 0.0, 0.15, 0.30, 0.28, 0.17, 0.10])  # share of groups by number of members


def similar(config: WorldConfig, users: Users, workers: int = 2) -> tuple[Ints, Ints]:
    """The most alike of each user's city: the `top_k` largest cosines of fine_pref, from the threshold on.

    Args:
        workers: threads. Changes nothing but the time taken.

    Returns:
        (user, peer), both (E,), ordered by user, then by falling cosine. Directed: a peer need not return it.
    """
    numbers = config.numbers

    def nearest(ids: Ints, fine: Floats, start: int, stop: int) -> tuple[Ints, Ints]:
        k = min(numbers.top_k, len(ids) - 1)
        cosine = fine[start:stop] @ fine.T
        cosine[np.arange(stop - start), np.arange(start, stop)] = -1.0
        best = largest(cosine, k)
        value = np.take_along_axis(cosine, best, axis=1)
        falling = np.lexsort((best, -value), axis=1)
        best, value = np.take_along_axis(best, falling, axis=1), np.take_along_axis(value, falling, axis=1)
        row, column = np.nonzero(value >= numbers.similarity_threshold)
        return ids[start + row], ids[best[row, column]]

    with ThreadPoolExecutor(workers) as pool:
        found = []
        for c in range(config.cities):
            ids = np.flatnonzero(users.city == c)
            if len(ids) > 1:
                fine = unit(users.fine_pref[ids])
                found += [pool.submit(nearest, ids, fine, *block) for block in blocks(len(ids))]
        parts = [f.result() for f in found]
    if not parts:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    user, peer = (np.concatenate(p) for p in zip(*parts, strict=True))
    rows = order(user)
    return user[rows], peer[rows]


def largest(values: Floats, k: int) -> Ints:
    """(R, k) columns of the k largest values of each row (R, n), in no order; 1 <= k <= n.

    They lie in the k groups of columns with the largest maxima, and a running maximum costs a tenth of a partition.
    """
    rows, n = values.shape
    groups = n // _GROUP
    if groups <= k:
        return np.argpartition(values, n - k, axis=1)[:, n - k :]
    # Group g holds columns g, g + groups, ...; those that are left over are looked at besides.
    maxima = values[:, : groups * _GROUP].reshape(rows, _GROUP, groups).max(axis=1)
    found = np.argpartition(maxima, groups - k, axis=1)[:, groups - k :]
    among = (found[:, :, None] + groups * np.arange(_GROUP)).reshape(rows, -1)
    among = np.concatenate([among, np.tile(np.arange(groups * _GROUP, n), (rows, 1))], axis=1)
    best = np.argpartition(np.take_along_axis(values, among, axis=1), among.shape[1] - k, axis=1)[:, -k:]
    return np.take_along_axis(among, best, axis=1)


def make_groups(config: WorldConfig, users: Users, alike: tuple[Ints, Ints]) -> Ints:
    """Groups of friends: a host and some of those alike.

    Args:
        alike: from `similar`.

    Returns:
        (G, 6) user ids, the host first, -1 beyond a group's size; groups in order of their host.
    """
    user, peer = alike
    first = np.searchsorted(user, np.arange(len(users) + 1))
    known = np.diff(first)
    parts = []
    for block, (start, stop) in enumerate(blocks(len(users))):
        rng, n = stream(config.seed, Stream.GROUPS, block), stop - start
        hosts = rng.random(n) < config.numbers.group_share
        size = choose(rng, _SIZES, n)
        most = len(_SIZES) - 2
        # Distinct members: the smallest random keys among the peers that exist.
        keys = rng.random((n, max(config.numbers.top_k, most)))
        keys[np.arange(keys.shape[1])[None, :] >= known[start:stop, None]] = 2.0
        pick = np.argsort(keys, axis=1)[:, :most]
        there = (np.take_along_axis(keys, pick, axis=1) < 2.0) & (np.arange(most)[None, :] < size[:, None] - 1)
        at = np.where(there, first[start:stop, None] + pick, 0)
        members = np.where(there, peer[at] if len(peer) else -1, -1)
        group = np.concatenate([np.arange(start, stop)[:, None], members], axis=1)
        parts.append(group[hosts & there[:, 0]])
    return np.concatenate(parts)


def group_pairs(groups: Ints) -> tuple[Ints, Ints]:
    """Everyone with everyone of the same group: (u, v) with u < v, with repeats over groups."""
    a, b = np.triu_indices(groups.shape[1], k=1)
    u, v = groups[:, a].ravel(), groups[:, b].ravel()
    keep = (u >= 0) & (v >= 0)
    return np.minimum(u, v)[keep], np.maximum(u, v)[keep]


def make_outings(config: WorldConfig, users: Users, places: Places, cities: list[City], groups: Ints) -> Outings:
    """Where and when groups go out, and who comes: those who joined by then, are in town, and feel like it.

    A group's place is drawn as a user's is, from the mean of its members' tastes.
    """
    numbers = config.numbers
    weights = np.array([w for _, w in _MEETINGS])
    hour, day = np.array([m for m, _ in _MEETINGS]).T
    parts: list[tuple[Ints, Ints, Ints]] = []
    for block, (start, stop) in enumerate(blocks(len(groups))):
        rng = stream(config.seed, Stream.OUTINGS, block)
        group = groups[start:stop]
        member = group >= 0
        # Some groups meet every week, many hardly ever.
        times = rng.poisson(rng.exponential(numbers.outings, len(group)))
        g = np.repeat(np.arange(len(group)), times)
        n = len(g)
        week, meeting = rng.integers(0, config.weeks, n), choose(rng, weights, n)
        moment = config.start_us + week * WEEK_US + day[meeting] * DAY_US + hour[meeting] * HOUR_US
        moment = moment + rng.integers(0, 3 * HOUR_US, n)
        place = _places(config, users, cities, group, g, moment, rng)
        goes = (place >= 0) & (rng.random(n) < alive(places, np.maximum(place, 0), moment) / 0.6)
        comes = member[g] & (rng.random((n, group.shape[1])) < numbers.join) & goes[:, None]
        who = np.maximum(group[g], 0)
        comes &= (users.joined[who] <= moment[:, None]) & (users.where[who, week[:, None]] == users.city[who])
        comes &= comes.sum(axis=1, keepdims=True) >= 2
        row, column = np.nonzero(comes)
        arrival = moment[row] + rng.integers(0, 25 * _MINUTE_US, len(row))
        parts.append((who[row, column], place[row], arrival))
    if not parts:
        empty = np.zeros(0, dtype=np.int64)
        return Outings(empty, empty, empty)
    user, at, when = (np.concatenate(p) for p in zip(*parts, strict=True))
    rows = np.lexsort((at, when, user))
    return Outings(user[rows], at[rows], when[rows])


def _places(
    config: WorldConfig, users: Users, cities: list[City], group: Ints, g: Ints, moment: Ints, rng: np.random.Generator
) -> Ints:
    """A place (O,) for each outing of group g (O,) at a moment (O,); -1 where the city has none."""
    numbers = config.numbers
    home, season = users.city[group[g, 0]], season_of(config, moment)
    place: npt.NDArray[np.int64] = np.full(len(g), -1)
    ready = []
    for city in cities:
        at = np.flatnonzero(home == city.number)
        if len(at) and len(city.ids):
            # One product for all seasons: with few rows it is mostly preparation.
            pairs, row = np.unique(season[at] * len(group) + g[at], return_inverse=True)
            turn, rows = pairs // len(group), pairs % len(group)
            liking = city.taste(together(config, users, group[rows], turn), numbers)
            rims = np.searchsorted(turn, np.arange(config.seasons + 1))
            ready.append((city, at, row, rims, (liking + city.draw) / numbers.temperature))
    for s in range(config.seasons):
        for city, at, row, rims, logits in ready:
            low, high = rims[s : s + 2]
            if low == high:
                continue
            mine = np.flatnonzero((row >= low) & (row < high))
            sampler = Sampler(logits[low:high], city, numbers.slot_weight)
            found = sampler.draw(rng, row[mine] - low, slots(moment[at[mine]]))
            place[at[mine]] = city.ids[found]
    return place


def together(config: WorldConfig, users: Users, group: Ints, season: Ints) -> Tastes:
    """Groups (G, 6) as one each, each in a season (G,): the mean of its members' tastes, the least of their means."""
    member = (group >= 0).astype(np.float32)
    share = (member / member.sum(axis=1, keepdims=True))[:, :, None]
    who = np.maximum(group, 0)
    each = Tastes.of(config, users, who.ravel(), np.repeat(season, group.shape[1]))
    return Tastes(
        fine=unit((each.fine.reshape(*who.shape, -1) * share).sum(axis=1)),
        cat=(each.cat.reshape(*who.shape, -1) * share).sum(axis=1),
        area=(each.area.reshape(*who.shape, -1) * share).sum(axis=1),
        means=np.where(group >= 0, each.means.reshape(who.shape), np.float32(np.inf)).min(axis=1),
    )
