"""Groups of friends and their outings: what makes co-attendance mean something.

Differs from the seed, where `CO_ATTENDANCE_PROB` is never used and nobody meets but by accident.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from recsys.world.config import WorldConfig
from recsys.world.interactions import DAY_US, HOUR_US, WEEK_US, Outings, slots
from recsys.world.places import Ints, Places
from recsys.world.scoring import City, Sampler, Tastes, alive, unit
from recsys.world.streams import Stream, blocks, choose, stream
from recsys.world.users import Users

_MINUTE_US: Final = 60_000_000
# Groups meet in the evening, and in the day at weekends: (first hour, day of the week), weight.
_MEETINGS: Final = (
    *(((19, d), 1.0) for d in range(4)), ((19, 4), 3.0), ((13, 5), 1.5), ((20, 5), 3.0), ((12, 6), 2.0), ((18, 6), 1.0)
)  # fmt: skip
_SIZES: Final = np.array([0.0, 0.0, 0.15, 0.30, 0.28, 0.17, 0.10])  # share of groups by number of members


def similar(config: WorldConfig, users: Users) -> tuple[Ints, Ints]:
    """The most alike of each user's city: the `top_k` largest cosines of fine_pref, from the threshold on.

    Returns:
        (user, peer), both (E,), ordered by user, then by falling cosine. Directed: a peer need not return it.
    """
    numbers = config.numbers
    found_user, found_peer = [], []
    for c in range(config.cities):
        ids = np.flatnonzero(users.city == c)
        if len(ids) < 2:
            continue
        fine = unit(users.fine_pref[ids])
        k = min(numbers.top_k, len(ids) - 1)
        for start, stop in blocks(len(ids)):
            cosine = fine[start:stop] @ fine.T
            cosine[np.arange(stop - start), np.arange(start, stop)] = -1.0
            best = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
            value = np.take_along_axis(cosine, best, axis=1)
            order = np.lexsort((best, -value), axis=1)
            best, value = np.take_along_axis(best, order, axis=1), np.take_along_axis(value, order, axis=1)
            row, column = np.nonzero(value >= numbers.similarity_threshold)
            found_user.append(ids[start + row])
            found_peer.append(ids[best[row, column]])
    if not found_user:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    user, peer = np.concatenate(found_user), np.concatenate(found_peer)
    order = np.argsort(user, kind="stable")
    return user[order], peer[order]


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
    order = np.lexsort((at, when, user))
    return Outings(user[order], at[order], when[order])


def _places(
    config: WorldConfig, users: Users, cities: list[City], group: Ints, g: Ints, moment: Ints, rng: np.random.Generator
) -> Ints:
    numbers = config.numbers
    member = (group >= 0).astype(np.float32)
    share = (member / member.sum(axis=1, keepdims=True))[:, :, None]
    who = np.maximum(group, 0)
    mean = Tastes(
        fine=unit((unit(users.fine_pref[who.ravel()]).reshape(*who.shape, -1) * share).sum(axis=1)),
        cat=(users.cat_pref[who] * share).sum(axis=1),
        area=(users.area[who] * share).sum(axis=1),
    )
    home = users.city[group[:, 0]]
    place: npt.NDArray[np.int64] = np.full(len(g), -1)
    for c, city in enumerate(cities):
        at = np.flatnonzero(home[g] == c)
        if not len(at) or not len(city.ids):
            continue
        rows, row = np.unique(g[at], return_inverse=True)
        tastes = Tastes(mean.fine[rows], mean.cat[rows], mean.area[rows])
        logits = (city.taste(tastes, numbers) + city.draw) / numbers.temperature
        found = Sampler(logits, city, numbers.slot_weight).draw(rng, row, slots(moment[at]))
        place[at] = city.ids[found]
    return place
