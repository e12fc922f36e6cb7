"""The online states as those who change them see them: filled from history, folded one event at a time.

Whoever writes holds the lock of the event log (`recsys.events`), so a state is read, changed and written by one at a
time. The store also notes what it was filled from and how far the event log has been folded into it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa

from recsys.aggregates import PAIR_HEAD, PAIR_TTL, States
from recsys.aggregates.states import Doubles, Ints
from recsys.features.format import decode, scan
from recsys.features.store import FeatureStore
from recsys.features.wire import Commands, Wire, command

_CHUNK: Final = 50_000  # rows of one round trip: some 15 MB
_SCAN: Final = b"10000"
_KINDS: Final = {b"user_id": "user", b"place_id": "place", b"user_u": "user", b"user_v": "user"}
_CROWD_DAYS: Final = 4  # who attended a place on a day is remembered this long, on the server's clock
_LAST_AT: Final = PAIR_HEAD.index("last_at_us")


@dataclass(frozen=True)
class Wanted:
    """States to read or to write: N ids of each of the view's join keys, in its order."""

    view: str
    ids: tuple[Ints, ...]


@dataclass(frozen=True)
class Mark:
    """What the store was filled from.

    Attributes:
        source: fingerprint of the data; empty where nothing was.
        folded: position in the event log up to which everything is in the states.
    """

    source: str
    folded: int


class LiveStates:
    """Writes and bare reads of the states in Redis.

    Args:
        store: whose connections and layout are used.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._meta = f"{store.project}:meta".encode()
        self._crowd = f"{store.project}:crowd:".encode()

    # ----------------------------------------------------------------------------------------------------------- marks
    def mark(self, within_s: float = math.inf) -> Mark:
        """What the store was filled from, and how far the log is in it.

        Args:
            within_s: deadline, where it is sooner than the store's: so small a question is answered at once, or the
                server is frozen.
        """
        (answer,) = self._ask(command(b"HMGET", self._meta, b"source", b"folded"), within_s)
        source, folded = answer
        return Mark((source or b"").decode(), int(folded or 0))

    def set_mark(self, mark: Mark) -> None:
        """Note it."""
        fields = (b"source", mark.source.encode(), b"folded", b"%d" % mark.folded)
        self._ask(command(b"HSET", self._meta, *fields))

    def keys(self) -> dict[str, int]:
        """Keys online by kind of entity, counted by scanning."""
        counts: dict[str, int] = {}
        for keys in self._scan(scan(self._store.project)):
            for key in keys:
                kind = "_".join(kind for name, kind in _KINDS.items() if name in key)
                counts[kind] = counts.get(kind, 0) + 1
        return counts

    def clear(self) -> None:
        """Remove everything of this project; first the mark: half cleared is filled from nothing."""
        self._ask(command(b"UNLINK", self._meta))
        for pattern in (scan(self._store.project), self._crowd + b"*"):
            for keys in self._scan(pattern):
                self._ask(Commands.join(command(b"UNLINK", key) for key in keys))

    # ---------------------------------------------------------------------------------------------------------- states
    def fill(self, view: str, rows: pa.Table, *, seq: int, end: datetime, wall: datetime) -> int:
        """Write the last row of every key.

        Args:
            view: whose rows these are.
            rows: join keys, event_timestamp (sorted) and state.
            seq: position in the event log up to which the rows know everything.
            end: the moment as of which the data are.
            wall: the moment by the server's clock; a pair's key is forgotten two days after it ceased to count.

        Returns:
            How many keys were written.
        """
        layout = self._store.rows(view)
        columns = [rows[name].to_numpy() for name in layout.join_keys]
        last = last_of_each(columns)
        for first in range(0, len(last), _CHUNK):
            at = last[first : first + _CHUNK]
            part = rows.take(at)
            states = States.of_arrow(part["state"])
            values = states.values.copy()
            values[states.offsets[:-1]] = seq
            states = States(values, states.offsets)
            seconds = part["event_timestamp"].cast(pa.int64()).to_numpy() // 1_000_000
            self._put(Wanted(view, tuple(c[at] for c in columns)), states, seconds, end=end, wall=wall)
        return len(last)

    def wanted(self, view: str, **ids: Ints) -> Wanted:
        """States to read or to write; (N,) ids by the name of the join key."""
        return Wanted(view, tuple(ids[name] for name in self._store.rows(view).join_keys))

    def read(self, wanted: Sequence[Wanted]) -> list[list[Doubles | None]]:
        """States of several views in one round trip; None where there is none."""
        commands = [self._store.rows(w.view).get(w.ids) for w in wanted if len(w.ids[0])]
        answers = self._ask(Commands.join(commands))
        out, first = [], 0
        for w in wanted:
            n = len(w.ids[0])
            out.append([None if a is None else decode([a]).values for a in answers[first : first + n]])
            first += n
        return out

    def write(
        self, changed: Sequence[tuple[Wanted, Sequence[Doubles], Ints]], *, end: datetime, wall: datetime
    ) -> None:
        """Write states of several views in one round trip; of each: ids, states, seconds of the last event."""
        parts = [self._commands(w, States.of_rows(states), at, end, wall) for w, states, at in changed if len(states)]
        self._ask(Commands.join(parts))

    def drop(self, wanted: Wanted) -> None:
        """Forget states."""
        for first in range(0, len(wanted.ids[0]), _CHUNK):
            ids = [column[first : first + _CHUNK] for column in wanted.ids]
            self._ask(self._store.rows(wanted.view).drop(ids))

    # ----------------------------------------------------------------------------------------------------------- crowds
    def crowds(self, places: Sequence[tuple[int, int]]) -> list[dict[int, int]]:
        """Of each (place, day since the epoch): who attended, and by which position in the log first."""
        answers = self._ask(Commands.join(command(b"HGETALL", self._crowd_key(*p)) for p in places))
        return [{int(u): int(seq) for u, seq in zip(a[::2], a[1::2], strict=True)} for a in answers]

    def join_crowds(self, who: Sequence[tuple[int, int, int, int]]) -> None:
        """(place, day, user, seq): the user attended; the first position in the log stays."""
        parts = []
        for place, day, user, seq in who:
            key = self._crowd_key(place, day)
            parts.append(command(b"HSETNX", key, b"%d" % user, b"%d" % seq))
            parts.append(command(b"EXPIRE", key, b"%d" % (_CROWD_DAYS * 86_400)))
        for first in range(0, len(parts), 2 * _CHUNK):
            self._ask(Commands.join(parts[first : first + 2 * _CHUNK]))

    def _crowd_key(self, place: int, day: int) -> bytes:
        return self._crowd + b"%d:%d" % (place, day)

    def _put(self, wanted: Wanted, states: States, seconds: Ints, *, end: datetime, wall: datetime) -> None:
        self._ask(self._commands(wanted, states, seconds, end, wall))

    def _commands(self, wanted: Wanted, states: States, seconds: Ints, end: datetime, wall: datetime) -> Commands:
        expire: Ints | None = None
        if wanted.view == "user_place":
            left_us = states.values[states.offsets[:-1] + _LAST_AT] - end.timestamp() * 1e6
            left_ms = (left_us / 1e3).astype(np.int64) + int(PAIR_TTL.total_seconds() + 2 * 86_400) * 1000
            expire = round(wall.timestamp() * 1e3) + np.maximum(left_ms, 1000)
        return self._store.rows(wanted.view).put(wanted.ids, states, seconds, expire)

    def _scan(self, pattern: bytes) -> Iterator[list[bytes]]:
        """Keys, some at a time, of each node that holds any."""
        with self._store.redis_errors():
            nodes = self._store.wire.nodes()
        for node in nodes:
            cursor = b"0"
            while True:
                ((cursor, keys),) = self._ask(command(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", _SCAN), of=node)
                yield keys
                if cursor == b"0":
                    break

    def _ask(self, commands: Commands, within_s: float = math.inf, of: Wire | None = None) -> list[Any]:
        with self._store.redis_errors():
            return (of or self._store.wire).ask(commands, within_s)


def last_of_each(columns: Sequence[Ints]) -> Ints:
    """Positions of the last row of every key, ascending."""
    order = np.lexsort(tuple(columns[::-1]))  # stable: rows of one key stay in their order
    changes = np.zeros(len(order), dtype=bool)
    changes[-1:] = True
    for column in columns:
        changes[:-1] |= column[order][1:] != column[order][:-1]
    return np.sort(order[changes])
