"""Co-attendance, social edges and friend labels (seed, sections 2.5, 2.6 and 7.5; amendment 5)."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.keys import order, unique
from recsys.schemas import FRIEND_LABELS, USER_USER_EDGES
from recsys.world.config import WorldConfig
from recsys.world.interactions import DAY_US
from recsys.world.places import Floats, Ints
from recsys.world.streams import Stream, blocks, stream
from recsys.world.users import Users

COMPATIBLE_FROM: Final = 0.6
INCOMPATIBLE_BELOW: Final = 0.3
FRIENDS_FROM: Final = 2  # co-attendances
_ROUNDS: Final = 60  # of drawing negatives, after which a small world has no more to give
_CHUNK: Final = 65_536  # pairs that draw from one stream
_IN_CACHE: Final = 2_048  # pairs whose features are computed at once: a fifth of the time of a chunk's


@dataclass(frozen=True)
class CoAttendance:
    """Pairs who attended the same place on the same day.

    Attributes:
        key: (P,) u * N + v with u < v, ascending.
        count: (P,) distinct (place, day) they shared.
        second: (P,) moment of the second one, in microseconds since 1970; -1 where there was one only.
    """

    key: Ints
    count: Ints
    second: Ints

    def lookup(self, key: Ints) -> tuple[Ints, Ints]:
        """Count and moment of the second one of any pairs; 0 and -1 for those who never met."""
        if not len(self.key):
            return np.zeros(len(key), dtype=np.int64), np.full(len(key), -1)
        at = np.minimum(np.searchsorted(self.key, key), len(self.key) - 1)
        known = self.key[at] == key
        return np.where(known, self.count[at], 0), np.where(known, self.second[at], -1)


def co_attendance(user: Ints, place: Ints, moment: Ints, n_users: int) -> CoAttendance:
    """Count who met whom.

    Args:
        user, place, moment: (A,) attended interactions; a user's own in order of time.
        n_users: N of the pair keys.
    """
    if not len(user):
        none = np.zeros(0, dtype=np.int64)
        return CoAttendance(none, none, none)
    day = moment // DAY_US
    where = (day - day.min()) * (place.max() + 1) + place
    rows = order(where * n_users + user)
    user, where, moment = user[rows], where[rows], moment[rows]
    fresh = np.ones(len(user), dtype=bool)
    fresh[1:] = (user[1:] != user[:-1]) | (where[1:] != where[:-1])
    user, where, moment = user[fresh], where[fresh], moment[fresh]
    keys, moments = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    at = np.arange(len(user))
    step = 0
    while len(at):
        # Rows at distance 1, 2, … of the same place and day: all pairs of it in the end.
        step += 1
        at = at[at + step < len(user)]
        at = at[where[at + step] == where[at]]
        keys.append(user[at] * n_users + user[at + step])
        moments.append(np.maximum(moment[at], moment[at + step]))
    key, met = np.concatenate(keys), np.concatenate(moments)
    rows = order(key)
    key, met = key[rows], met[rows]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    pairs, count = key[first], np.diff(first, append=len(key))
    several = np.repeat(count > 1, count)  # few: only theirs have to be in order of time
    met[several] = met[several][np.lexsort((met[several], key[several]))]
    second = np.where(count >= FRIENDS_FROM, met[np.minimum(first + 1, max(len(met) - 1, 0))] if len(met) else -1, -1)
    return CoAttendance(pairs, count, second)


def overlap(users: Users, u: Ints, v: Ints) -> Floats:
    """(B,) float32 cosine of fine_pref, in [0, 1]; independent of the order of rows and pairs."""
    fine, out = users.fine_pref, np.empty(len(u), dtype=np.float32)
    square = np.einsum("ij,ij->i", fine, fine, dtype=np.float64)
    for start, stop in blocks(len(u), _IN_CACHE):
        a, b = u[start:stop], v[start:stop]
        product = np.einsum("ij,ij->i", fine[a], fine[b], dtype=np.float64)
        out[start:stop] = np.clip(product / np.sqrt(square[a] * square[b]), 0.0, 1.0)
    return out


def area_jaccard(users: Users, u: Ints, v: Ints) -> Floats:
    """(B,) float32 Jaccard index of the neighbourhoods of area_freqs; 0 across cities."""
    out = np.empty(len(u), dtype=np.float32)
    for start, stop in blocks(len(u), _IN_CACHE):
        a, b = users.area[u[start:stop]] > 0, users.area[v[start:stop]] > 0
        both, either = (a & b).sum(axis=1), (a | b).sum(axis=1)
        same = users.city[u[start:stop]] == users.city[v[start:stop]]
        out[start:stop] = np.where(same, both / np.maximum(either, 1), 0.0)
    return out


@dataclass(frozen=True)
class Edges:
    """Social edges in order of (u, v), u < v: overlap and jaccard (T,) float32, met (T,) co-attendances."""

    u: Ints
    v: Ints
    overlap: Floats
    met: Ints
    jaccard: Floats

    def table(self, users: Users) -> pa.Table:
        """The edges as `schemas.USER_USER_EDGES` has them."""
        known = np.maximum(users.joined[self.u], users.joined[self.v])
        columns = (self.u, self.v, self.overlap, self.met.astype(np.int32), self.jaccard, known)
        return _table(columns, USER_USER_EDGES.arrow)


def _table(columns: tuple[npt.NDArray[np.generic], ...], schema: pa.Schema) -> pa.Table:
    arrays = [pa.array(c).cast(f.type) for c, f in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def make_edges(
    config: WorldConfig, users: Users, alike: tuple[Ints, Ints], friends: tuple[Ints, Ints], met: CoAttendance
) -> Edges:
    """Social edges: the most alike of each city, and friends of a group that are alike enough.

    Whether friends did go out does not decide: the edge is known from the start, what happens later is not.

    Args:
        alike: from `friends.similar`.
        friends: from `friends.group_pairs`.
    """
    n = len(users)
    u, v = np.concatenate([alike[0], friends[0]]), np.concatenate([alike[1], friends[1]])
    key = unique(np.minimum(u, v) * n + np.maximum(u, v))
    u, v = key // n, key % n
    cosine = overlap(users, u, v)
    keep = cosine >= config.numbers.similarity_threshold
    u, v, cosine, key = u[keep], v[keep], cosine[keep], key[keep]
    return Edges(u, v, cosine, met.lookup(key)[0], area_jaccard(users, u, v))


@dataclass(frozen=True)
class Labels:
    """Friend labels in order of (u, v), u < v: compat, attend (L,) 0/1, moment (L,) microseconds since 1970.

    `p_attend` (L,) float64 is the probability that `attend` was drawn with; `compat` follows from the rule, so that its
    own is 0 or 1.
    """

    u: Ints
    v: Ints
    compat: Ints
    attend: Ints
    moment: Ints
    p_attend: npt.NDArray[np.float64]

    def table(self) -> pa.Table:
        """The labels as `schemas.FRIEND_LABELS` has them."""
        columns = (self.u, self.v, self.compat.astype(np.int32), self.attend.astype(np.int32), self.moment)
        return _table(columns, FRIEND_LABELS.arrow)


def make_labels(config: WorldConfig, users: Users, edges: Edges, met: CoAttendance) -> Labels:
    """Label pairs by the seed's section 2.6; pairs between the two classes get no label.

    Positive: a social edge with overlap from 0.6, or anyone with two co-attendances. Negative: overlap below 0.3 and
    none.
    """
    n = len(users)
    close = edges.u * n + edges.v
    positive = unique(np.concatenate([close[edges.overlap >= COMPATIBLE_FROM], met.key[met.count >= FRIENDS_FROM]]))
    wanted = round(config.numbers.negatives_per_positive * len(positive))
    negative = _negatives(config, users, met, wanted)
    key = np.concatenate([positive, negative])
    compat = np.concatenate([np.ones(len(positive), dtype=np.int64), np.zeros(len(negative), dtype=np.int64)])
    rows = order(key)
    key, compat = key[rows], compat[rows]
    u, v = key // n, key % n
    cosine = overlap(users, u, v).astype(np.float64)
    count, second = met.lookup(key)
    attend, moment = np.zeros(len(key), dtype=np.int64), np.zeros(len(key), dtype=np.int64)
    p_attend = compat * np.minimum(0.95, config.numbers.attend_scale * cosine * (1 + count / 10))
    known = np.maximum(users.joined[u], users.joined[v])
    for block, (start, stop) in enumerate(blocks(len(key), _CHUNK)):
        rng = stream(config.seed, Stream.LABELS, block)
        at = slice(start, stop)
        attend[at] = rng.random(stop - start) < p_attend[at]
        moment[at] = known[at] + (rng.random(stop - start) * (config.end_us - known[at])).astype(np.int64)
    # A pair that only its outings make friends is known to be so from the second one on.
    by_outings = (compat == 1) & (cosine < COMPATIBLE_FROM)
    return Labels(u, v, compat, attend, np.where(by_outings, second, moment), p_attend)


def _negatives(config: WorldConfig, users: Users, met: CoAttendance, wanted: int) -> Ints:
    """Pair keys (≤ wanted,): half of them any two users, half of the same city with a shared area."""
    n = len(users)
    if n < 2 or wanted < 1:
        return np.zeros(0, dtype=np.int64)
    by_city = [np.flatnonzero(users.city == c) for c in range(config.cities)]
    count = np.array([len(c) for c in by_city])
    members, first = np.concatenate(by_city), np.cumsum(count) - count
    hard: Ints = np.zeros(0, dtype=np.int64)
    easy: Ints = np.zeros(0, dtype=np.int64)
    size = max(_CHUNK, wanted // 4)
    for step in range(_ROUNDS):
        if len(hard) + len(easy) == wanted:
            break
        rng = stream(config.seed, Stream.NEGATIVES, step)
        u = rng.integers(0, n, size)
        peer = rng.random(size)
        city = users.city[u]
        if step % 2 and len(hard) < wanted // 2:
            v = members[first[city] + (peer * count[city]).astype(np.int64)]
            hard = _more(users, met, u, v, hard, easy, wanted // 2, near=True)
        elif not step % 2 and len(easy) < wanted - wanted // 2:
            v = np.minimum((peer * n).astype(np.int64), n - 1)
            easy = _more(users, met, u, v, easy, hard, wanted - wanted // 2, near=False)
    return np.concatenate([easy, hard])


def _more(
    users: Users, met: CoAttendance, u: Ints, v: Ints, have: Ints, others: Ints, wanted: int, *, near: bool
) -> Ints:
    n = len(users)
    key = np.minimum(u, v) * n + np.maximum(u, v)
    key = unique(key[u != v])
    key = key[~np.isin(key, np.concatenate([have, others]), assume_unique=True)]
    key = key[met.lookup(key)[0] == 0]
    if near:
        key = key[area_jaccard(users, key // n, key % n) > 0]
    key = key[overlap(users, key // n, key % n) < INCOMPATIBLE_BELOW]
    if len(have) + len(key) > wanted:
        # Evenly spaced, since keys are sorted: the first ones would all be pairs of the lowest ids.
        key = key[np.linspace(0, len(key) - 1, wanted - len(have)).astype(np.int64)]
    return np.concatenate([have, key])
