"""What answers are made from when the online store or the index does not answer.

The version has vectors, profiles of places and cities of users by itself; the process remembers what it read last.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import numpy as np
import pyarrow as pa

from recsys.aggregates import ONLINE_PEOPLE, ONLINE_PLACE
from recsys.aggregates.finish import Bools, Floats
from recsys.aggregates.states import Doubles, Ints
from recsys.breaker import Breaker
from recsys.errors import FeatureStoreUnavailable, IndexUnavailable
from recsys.online import Candidates, PlaceRow, UserProfile
from recsys.taxonomy import CITY, Widths

# `degraded` of an answer: what it had to do without
INDEX: Final = "index"
LAST_KNOWN: Final = "online_features:last_known"
NO_FEATURES: Final = "online_features"
LOAD: Final = "load"
PARTIAL: Final = "online_store_partial"
PROFILES: Final = "online_profiles"
DEGRADATIONS: Final = {
    LAST_KNOWN: "ranked with the features that the process had read last",
    NO_FEATURES: "no features at hand, so ordered by retrieval alone",
    LOAD: "more requests at once than can be answered in full: the online store was not asked",
    PARTIAL: "a node of the online store did not answer: its rows are as read last, else as of the version or none",
    PROFILES: "names, categories and tastes are as read last, or as of the version; people may be without a name",
    INDEX: "the index did not answer: the nearest were found among the version's own vectors",
}

# Of a request: whether to answer from what is at hand, without asking the online store. Set by who lets requests in.
HURRIED: Final[ContextVar[bool]] = ContextVar("hurried", default=False)

_ENOUGH: Final = 0.5  # share of the candidates with features from which the head ranks with them
_ROWS: Final = 1 << 17  # of features by id: 10 MB for places; a full table begins anew
_THERE: Final = 1e-3  # weight of a tag whose own is not known: enough for a filter, too little for a reason
_KEPT: Final = 20_000  # users, places and users' pairs as read online: about 40 MB each
_PLACE: Final = ONLINE_PLACE.index("place_known") + 1  # columns before it are the place's, after it the pair's
_TIE: Final = ONLINE_PEOPLE.index("tie_known") + 1  # columns before it are the tie's, after it the person's
Kept = TypeVar("Kept")


class _Lru(Generic[Kept]):
    """The entries used last. Not for several threads."""

    def __init__(self, most: int) -> None:
        self._most, self._entries = most, OrderedDict[int, Kept]()

    def keep(self, key: int, entry: Kept) -> None:
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)

    def find(self, key: int) -> Kept | None:
        return self._entries.get(key)


class _Table:
    """Features by id, each as it was read last, and when. Not for several threads."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._clear()

    def keep(self, ids: Ints, features: Floats, at_us: float) -> None:
        ids, features = ids[:_ROWS], features[:_ROWS]
        if len(self._row) + sum(i not in self._row for i in ids.tolist()) > _ROWS:
            self._clear()
        at = np.array([self._row.setdefault(i, len(self._row) + 1) for i in ids.tolist()], dtype=np.int64)
        self._features[at] = features
        self._read_at[at] = at_us

    def find(self, ids: Ints) -> tuple[Floats, Bools, Doubles]:
        """(C, D), zeros where nothing is known; (C,) where something is; (C,) when it was read, microseconds."""
        at = np.array([self._row.get(i, 0) for i in ids.tolist()], dtype=np.int64)
        return self._features[at], at > 0, self._read_at[at]

    def _clear(self) -> None:
        self._row: dict[int, int] = {}
        self._features: Floats = np.zeros((_ROWS + 1, self._width), dtype=np.float32)  # row 0 is nobody's
        self._read_at: Doubles = np.zeros(len(self._features))


class _Memory:
    """Candidates of requests: of one kind, features by id, and between a user and them those pairs that had any.

    Args:
        own, pair: the columns of either. known: the column that says whether a pair had any. width: of all columns.
        personal: whether nothing is worth ranking by for a user whose own pairs were never read.
    """

    def __init__(self, own: slice, pair: slice, known: int, width: int, *, personal: bool) -> None:
        self._own, self._pair, self._known, self._width, self._personal = own, pair, known, width, personal
        self._table = _Table(len(range(width)[own]))
        self._pairs = _Lru[tuple[Ints, Floats]](_KEPT)

    def keep(self, user_id: int, ids: Ints, read: Candidates, at_us: float) -> None:
        features = read.features
        if read.lost is None:
            self._table.keep(ids, features[:, self._own], at_us)
        else:
            own, pair = ~read.lost.T
            self._table.keep(ids[own], features[own, self._own], at_us)
            ids, features = ids[pair], features[pair]
        known = features[:, self._known] > 0
        with_whom, pairs = ids[known], features[known, self._pair]
        if (before := self._pairs.find(user_id)) is not None:  # of those asked for, what is forgotten online is gone
            others = ~np.isin(before[0], ids)
            with_whom = np.concatenate([with_whom, before[0][others]])
            pairs = np.concatenate([pairs, before[1][others]])
        self._pairs.keep(user_id, (with_whom, pairs))

    def find(
        self, user_id: int, ids: Ints, now_us: float, read: Candidates | None = None
    ) -> tuple[Floats, bool, float]:
        """(C, D) features, whether they are enough to rank by, and the age in seconds of the oldest.

        Args:
            user_id: the user. ids: (C,) candidates. now_us: the moment.
            read: what the store gave, where it gave some: what is remembered stands in for what is lost of it.
        """
        out = np.zeros((len(ids), self._width), dtype=np.float32)
        out[:, self._own], known, read_at = self._table.find(ids)
        if (pairs := self._pairs.find(user_id)) is not None:
            _, at, of = np.intersect1d(ids, pairs[0], return_indices=True)
            out[at, self._pair] = pairs[1][of]
        personal, fresh_s = pairs is not None or read is not None, 0.0
        if read is not None and read.lost is not None:
            own, pair = ~read.lost.T
            out[own, self._own], out[pair, self._pair] = read.features[own, self._own], read.features[pair, self._pair]
            known, read_at, fresh_s = known | own, np.where(own, now_us, read_at), read.age_s
        enough = (not len(ids) or bool(known.mean() >= _ENOUGH)) and (personal or not self._personal)
        age_s = max(0.0, now_us - float(read_at[known].min())) / 1e6 if known.any() else 0.0
        return out, enough, max(age_s, fresh_s)


class LastKnown:
    """What one process read online last, bounded. Safe for use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users, self._places = _Lru[UserProfile](_KEPT), _Lru[PlaceRow](_KEPT)
        place, pair = slice(0, _PLACE), slice(_PLACE, None)
        tie, person = slice(0, _TIE), slice(_TIE, None)
        known = ONLINE_PLACE.index("pair_known"), ONLINE_PEOPLE.index("tie_known")
        # Of the default world's whole lists, the first ten: places ranked without one's pairs keep 6, by retrieval 4;
        # people ranked without one's ties keep 3, by retrieval 5.
        self._to_places = _Memory(place, pair, known[0], len(ONLINE_PLACE), personal=False)
        self._to_people = _Memory(person, tie, known[1], len(ONLINE_PEOPLE), personal=True)

    def keep_users(self, rows: Sequence[UserProfile | None]) -> None:
        """Remember users as read online."""
        with self._lock:
            for row in rows:
                if row is not None:
                    self._users.keep(row.user_id, row)

    def keep_places(self, rows: Sequence[PlaceRow | None]) -> None:
        """Remember places as read online."""
        with self._lock:
            for row in rows:
                if row is not None:
                    self._places.keep(row.place_id, row)

    def keep_ranked(self, user_id: int, ids: Ints, read: Candidates, now_us: float, *, people: bool) -> None:
        """Remember what candidates, places or people, were ranked by."""
        with self._lock:
            if read.user is not None:
                self._users.keep(user_id, read.user)
            of = self._to_people if people else self._to_places
            of.keep(user_id, ids, read, now_us - read.age_s * 1e6)

    def user(self, user_id: int) -> UserProfile | None:
        """As last read."""
        with self._lock:
            return self._users.find(user_id)

    def place(self, place_id: int) -> PlaceRow | None:
        """As last read."""
        with self._lock:
            return self._places.find(place_id)

    def ranked(
        self, user_id: int, ids: Ints, now_us: float, *, people: bool, read: Candidates | None = None
    ) -> tuple[Floats, bool, float]:
        """(C, D) features as last read, zeros where never; whether they are enough to rank by; the oldest's age, s.

        What was `read` now stands, but for what is lost of it.
        """
        with self._lock:
            return (self._to_people if people else self._to_places).find(user_id, ids, now_us, read)


class Own:
    """What a version says by itself of its users and places.

    Args:
        users: an artifact's `users` table: user_id, index, city_id, embedding (kept as it is: 0.5 GB a million users).
        places: its `places` table: place_id, name, city_id, neighborhood_id, price_band, typical_time_slot,
            categories, tags.
        widths: of its taxonomy.
    """

    def __init__(self, users: pa.Table, places: pa.Table, widths: Widths = CITY.widths) -> None:
        self._widths = widths
        flat = users["embedding"].combine_chunks().flatten().to_numpy().astype(np.float32, copy=False)
        self._embeddings: Floats = flat.reshape(len(users), -1)
        self._users, self._homes = _Ids(users["user_id"]), users["city_id"].to_numpy()
        self._places = _Ids(places["place_id"])
        columns = ("name", "city_id", "neighborhood_id", "price_band", "typical_time_slot", "categories", "tags")
        self._profiles = places.select(list(columns)).combine_chunks()

    def embeddings(self, user_ids: Sequence[int]) -> dict[int, Floats]:
        """(D,) vectors by id, of those that the version knows."""
        rows = {i: self._users.row(i) for i in user_ids}
        return {i: self._embeddings[row].copy() for i, row in rows.items() if row is not None}

    def user(self, user_id: int) -> UserProfile | None:
        """Where a user lives, and nothing else: no name, no tastes; None where the version does not know them."""
        row = self._users.row(user_id)
        if row is None:
            return None
        sizes = (self._widths.categories, self._widths.tags, self._widths.vibes)
        categories, tags, vibes = (np.zeros(n, dtype=np.float32) for n in sizes)
        return UserProfile(user_id, "", int(self._homes[row]), -1, categories, tags, vibes, {})

    def place(self, place_id: int) -> PlaceRow | None:
        """A place as of the version, which knows its tags but not their weights; None where it does not know it."""
        row = self._places.row(place_id)
        if row is None:
            return None
        (said,) = self._profiles.slice(row, 1).to_pylist()
        return PlaceRow(
            place_id,
            said["name"],
            said["city_id"],
            said["neighborhood_id"],
            _weights(said["categories"], self._widths.categories, 1.0),
            _weights(said["tags"], self._widths.tags, _THERE),
            said["price_band"],
            said["typical_time_slot"],
        )


class _Ids:
    """Rows of a table by id."""

    def __init__(self, ids: pa.ChunkedArray) -> None:
        values = ids.to_numpy()
        self._order = np.argsort(values)
        self._sorted = values[self._order]

    def row(self, wanted: int) -> int | None:
        at = int(np.searchsorted(self._sorted, wanted))
        return int(self._order[at]) if at < len(self._sorted) and self._sorted[at] == wanted else None


def _weights(positions: Sequence[int], width: int, weight: float) -> Floats:
    out = np.zeros(width, dtype=np.float32)
    out[list(positions)] = weight
    return out


@dataclass(frozen=True)
class Guards:
    """What outlives a request, and may outlive a version: breakers, what was read last, and how often what was missing.

    Attributes:
        index_timeout_s: deadline of one call of the index.
        degradations: answers by what they had to do without.
    """

    index_timeout_s: float = 0.1
    online: Breaker = field(default_factory=lambda: Breaker("the online store", FeatureStoreUnavailable))
    index: Breaker = field(default_factory=lambda: Breaker("the index", IndexUnavailable))
    last: LastKnown = field(default_factory=LastKnown)
    degradations: Counter[str] = field(default_factory=Counter)
