"""A user's own proof: what training saw against the raw events, and what is online against what history says now.

Both recompute a sample. `pit` folds raw events one at a time, in a plain loop, up to the moment of a training
snapshot, and compares with what Feast's point-in-time join gives. `parity` computes states from the lake as of now,
folds the live events that have not landed yet, and compares with what is in the online store.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recsys.aggregates import (
    PAIR_TTL,
    RECENT_PLACES,
    TIE_STATE,
    Interaction,
    States,
    finish_pairs,
    finish_places,
    finish_ties,
    finish_users,
    pairs_of,
)
from recsys.aggregates.definitions import DAY_US
from recsys.aggregates.fold import State, fold_pair, fold_place, fold_recent, fold_tie, fold_user
from recsys.aggregates.states import Doubles, Ints
from recsys.features import FeatureStore, LiveStates, Wanted
from recsys.lake import Lake

TOLERANCE: Final = 1e-6
Keys = tuple[Ints, ...]
Floats = npt.NDArray[np.floating[Any]]
Queries = Mapping[str, str]

KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "user_activity": ("user_id",),
    "user_recent": ("user_id",),
    "place_activity": ("place_id",),
    "user_place": ("user_id", "place_id"),
    "user_user": ("user_u", "user_v"),
}
_SERVICES: Final = {
    "user_activity": "train_users_v1",
    "place_activity": "train_places_v1",
    "user_place": "train_user_place_v1",
    "user_user": "train_user_user_v1",
}
_LAST_AT: Final = {"user_activity": 1, "place_activity": 1, "user_recent": 2, "user_place": 2}  # of a state
_CROWD: Final = timedelta(days=3)  # who was where so lately may be joined by somebody whose event is late
_CONCERNS: Final = "(list_contains($users, user_id) OR list_contains($places, place_id))"
_PROFILE_NUMBERS: Final = (
    "home_city_id", "home_neighborhood_id", "cat_pref", "fine_pref", "vibe_pref", "city_id", "neighborhood_id",
    "category_one_hot", "fine_tag_vector", "price_band", "typical_time_slot",
)  # fmt: skip
_INTERACTION: Final = """
SELECT user_id, place_id, epoch_us("timestamp") AS at_us, dwell_time, num_likes, num_saves, num_shares, attended,
       implicit_rating AS rating, time_of_day_bucket AS time_of_day, day_of_week_bucket AS day_of_week
FROM interactions"""


@dataclass
class Finding:
    """What was compared of one view.

    Attributes:
        sampled: keys compared.
        off: of those, how many differ by more than 1e-6 in what the model reads.
        missing: of those, how many are known on one side only.
        worst: the largest difference.
        age_days: 50 %, 95 % and 100 % quantiles of the days since the last event in a state.
        examples: some of the keys that are off.
    """

    view: str
    sampled: int = 0
    off: int = 0
    missing: int = 0
    worst: float = 0.0
    age_days: tuple[float, ...] = ()
    examples: list[str] = field(default_factory=list)

    def add(self, keys: Sequence[tuple[int, ...]], ours: Floats, theirs: Floats) -> None:
        """Compare finished rows, (N, D) each; the last column says whether the row is known."""
        difference = np.abs(ours.astype(np.float64) - theirs).max(axis=1, initial=0.0)
        missing, off = ours[:, -1] != theirs[:, -1], difference > TOLERANCE
        self.sampled += len(keys)
        self.missing += int(missing.sum())
        self.off += int(off.sum())
        self.worst = max(self.worst, float(difference.max(initial=0.0)))
        self.examples += [str(keys[i]) for i in np.flatnonzero(off)[:5]]


def finish(view: str, states: States, now_us: int) -> Floats:
    """(N, D) what the model reads of a view's states; the last column says whether they are known."""
    if view == "user_recent":
        rows = np.zeros((len(states), 2 * RECENT_PLACES + 1))
        for row, a, b in zip(rows, states.offsets, states.offsets[1:], strict=False):
            row[: max(b - a - 1, 0)] = states.values[a + 1 : b]
            row[-1] = b > a
        return rows
    finishers: Mapping[str, Callable[[], Floats]] = {
        "user_activity": lambda: finish_users(states, now_us),
        "place_activity": lambda: finish_places(states, now_us),
        "user_place": lambda: finish_pairs(pairs_of(states, now_us)),
        "user_user": lambda: finish_ties(states),
    }
    return finishers[view]()


def sample(lake: Lake, n: int, seed: int, now: datetime) -> dict[str, Keys]:
    """Keys of every view that are known before a moment: a random n of each, pairs among those seen lately."""
    keys = {}
    since = {"now": now, "since": now - PAIR_TTL}
    sources = {
        "user_activity": ("SELECT user_id FROM users WHERE as_of < $now", {"now": now}),
        "place_activity": ("SELECT place_id FROM places WHERE as_of < $now", {"now": now}),
        "user_place": (
            'SELECT DISTINCT user_id, place_id FROM interactions WHERE "timestamp" >= $since AND "timestamp" < $now',
            since,
        ),
        "user_user": ("SELECT user_u, user_v FROM user_user_edges WHERE as_of < $now", {"now": now}),
    }
    for view, (sql, params) in sources.items():
        columns = ", ".join(KEYS[view])
        table = lake.query(f"SELECT * FROM ({sql}) ORDER BY hash({columns}, {seed}), {columns} LIMIT {n}", params)
        keys[view] = tuple(table[name].to_numpy() for name in KEYS[view])
    keys["user_recent"] = keys["user_activity"]
    return keys


def pit(lake: Lake, store: FeatureStore, as_of: datetime, keys: Mapping[str, Keys]) -> list[Finding]:
    """Feast's point-in-time rows against a loop over the raw events before the moment.

    Args:
        lake: the accepted tables.
        store: history.
        as_of: a midnight.
        keys: what to look at, by view.
    """
    replay, now_us, findings = _Replay(keys), _micros(as_of), []
    replay.begin(lake, as_of)
    for seq, row in enumerate(_events(lake, keys, as_of), 1):
        replay.fold(Interaction(**row, seq=seq))
    for view, service in _SERVICES.items():
        table = store.historical(service, dict(zip(KEYS[view], keys[view], strict=True)), as_of)
        theirs = States.of_arrow(table[f"{view}__state"])
        rows = replay.rows(view)
        if view == "user_user":  # likeness is another table's: what is proved here is how often two people met
            values, known = theirs.matrix(len(TIE_STATE))
            rows = [
                np.array([0, row[1], *of[2:]]) if k and row is not None else None
                for row, of, k in zip(rows, values, known, strict=True)
            ]
        findings.append(_compare(view, keys[view], States.of_rows(rows), theirs, now_us))
    return findings


def parity(
    lake: Lake, store: FeatureStore, now: datetime, keys: Mapping[str, Keys], queries: Queries, start: datetime,
    pending: Iterable[Interaction], scratch: Path,
) -> list[Finding]:  # fmt: skip
    """What is online against what lake and log say as of now.

    Args:
        lake: the accepted tables.
        store: the online store.
        now: the moment.
        keys: what to look at, by view.
        queries: the views' SQL.
        start: midnight at which the data begin.
        pending: live events that are not in the lake, in the order of the log.
        scratch: a folder for the events of the sample.
    """
    replay, now_us, findings = _Replay(keys), _micros(now), []
    replay.take(lake, now, queries, start, scratch)
    for event in pending:
        replay.fold(event)
    wanted = [Wanted(view, ids) for view, ids in keys.items()]
    for one, rows in zip(wanted, LiveStates(store).read(wanted), strict=True):
        finding = _compare(one.view, one.ids, States.of_rows(replay.rows(one.view)), States.of_rows(rows), now_us)
        at = _LAST_AT.get(one.view)
        ages = [(now_us - row[at]) / DAY_US for row in rows if at is not None and row is not None and len(row) > at]
        if ages:
            finding.age_days = tuple(round(float(q), 3) for q in np.quantile(ages, (0.5, 0.95, 1.0)))
        findings.append(finding)
    users, places = (
        store.users(keys["user_activity"][0].tolist(), now),
        store.places(keys["place_activity"][0].tolist()),
    )
    for view, online in (("user_profile", users), ("place_profile", places)):
        name = view.replace("_profile", "_id")
        offline = {row[name]: row for row in replay.profiles[view]}
        ids = keys[view.replace("profile", "activity")]
        finding = Finding(view)
        pairs = zip(ids[0].tolist(), online, strict=True)
        vectors = [(_numbers(vars(row) if row else None), _numbers(offline.get(i))) for i, row in pairs]
        width = max((len(v) for pair in vectors for v in pair), default=1)
        ours, theirs = (np.array([np.pad(v, (width - len(v), 0)) for v in side]) for side in zip(*vectors, strict=True))
        finding.add(_tuples(ids), ours, theirs)
        findings.append(finding)
    return findings


def _compare(view: str, ids: Keys, ours: States, theirs: States, now_us: int) -> Finding:
    finding = Finding(view)
    finding.add(_tuples(ids), finish(view, ours, now_us), finish(view, theirs, now_us))
    return finding


def _numbers(row: Mapping[str, Any] | None) -> Floats:
    """Everything of a profile that is a number, and that it is known; empty lists where it is not."""
    if row is None:
        return np.zeros(1)
    names = sorted(name for name in _PROFILE_NUMBERS if name in row)
    return np.concatenate([np.asarray(row[name], dtype=np.float64).ravel() for name in names] + [np.ones(1)])


def _events(lake: Lake, keys: Mapping[str, Keys], until: datetime) -> list[dict[str, Any]]:
    """Raw events before a moment that concern the sample, in order."""
    found: list[dict[str, Any]] = lake.query(
        f'{_INTERACTION} WHERE "timestamp" < $until AND {_CONCERNS} ORDER BY "timestamp", user_id, place_id',
        {"until": until, **_concerned(keys)},
    ).to_pylist()
    return found


def _concerned(keys: Mapping[str, Keys]) -> dict[str, list[int]]:
    users = {int(i) for view in ("user_activity", "user_user") for column in keys[view] for i in column}
    users |= set(keys["user_place"][0].tolist())
    return {"users": sorted(users), "places": sorted(set(keys["place_activity"][0].tolist()))}


class _Replay:
    """States of a sample, changed one event at a time."""

    def __init__(self, keys: Mapping[str, Keys]) -> None:
        self._keys = {view: _tuples(ids) for view, ids in keys.items()}
        self._asked = {view: set(ids) for view, ids in self._keys.items()}
        self._states: dict[str, dict[tuple[int, ...], State]] = {view: {} for view in keys}
        self._crowds: dict[tuple[int, int], set[int]] = defaultdict(set)
        self._sample = keys
        self.profiles: dict[str, list[dict[str, Any]]] = {}

    def rows(self, view: str) -> list[Doubles | None]:
        """In the order of the sample."""
        found = (self._states[view].get(key) for key in self._keys[view])
        return [None if state is None else np.array(state) for state in found]

    def begin(self, lake: Lake, as_of: datetime) -> None:
        """Before the first event: who is known has done nothing, and nobody met."""
        start, _ = lake.horizon()
        for view, kind in (("user_activity", "user"), ("place_activity", "place")):
            known = lake.query(f"SELECT {kind}_id AS id, as_of FROM {kind}s WHERE as_of < $t", {"t": as_of}).to_pylist()
            for row in known:
                if (key := (row["id"],)) in self._asked[view] and row["as_of"].date() < as_of.date():
                    day = max(_micros(row["as_of"]), _micros(start)) // DAY_US
                    self._states[view][key] = [0.0, float(_micros(row["as_of"])), float(day)]
        self._states["user_user"] = {key: [0.0] * len(TIE_STATE) for key in self._keys["user_user"]}

    def take(self, lake: Lake, now: datetime, queries: Queries, start: datetime, scratch: Path) -> None:
        """States as of now by the views' own SQL, over the events that concern the sample only."""
        files = {"interactions": scratch / "interactions.parquet"}
        lake.write(f"SELECT * FROM interactions WHERE {_CONCERNS}", files["interactions"], _concerned(self._sample))
        values = {"start": start, "after": start, "end": now}
        for view in ("user_profile", "place_profile", *self._keys):
            names = KEYS.get(view) or (view.replace("_profile", "_id"),)
            params = {name: value for name, value in values.items() if f"${name}" in queries[view]}
            last = f"row_number() OVER (PARTITION BY {', '.join(names)} ORDER BY event_timestamp DESC) = 1"
            path = scratch / f"{view}.parquet"
            lake.write(f"SELECT * FROM ({queries[view]}) QUALIFY {last}", path, params, files=files)
            asked = self._asked.get(view) or self._asked[view.replace("profile", "activity")]
            table = lake.derive(
                f"SELECT * FROM rows WHERE {names[0]} IN (SELECT unnest({[k[0] for k in asked]}))", {"rows": path}
            )
            rows = [row for part in table for row in part.to_pylist() if tuple(row[name] for name in names) in asked]
            if view in self._states:
                self._states[view] = {tuple(row[name] for name in names): row["state"] for row in rows}
            else:
                self.profiles[view] = rows
        today = lake.query(
            f'{_INTERACTION} WHERE attended AND "timestamp" >= $since AND "timestamp" < $now',
            {"since": now - _CROWD, "now": now},
        ).to_pylist()
        for row in today:
            self._crowds[row["place_id"], row["at_us"] // DAY_US].add(row["user_id"])

    def fold(self, event: Interaction) -> None:
        """One event into the states, and into who was where that day."""
        user, place, pair = (event.user_id,), (event.place_id,), (event.user_id, event.place_id)
        for view, key, fold in (
            ("user_activity", user, fold_user), ("place_activity", place, fold_place),
            ("user_recent", user, fold_recent), ("user_place", pair, fold_pair),
        ):  # fmt: skip
            if key in self._asked[view]:
                self._states[view][key] = fold(self._states[view].get(key), event)
        crowd = self._crowds[event.place_id, event.at_us // DAY_US]
        if not event.attended or event.user_id in crowd:
            return
        for other in crowd:
            key = (min(other, event.user_id), max(other, event.user_id))
            if (state := self._states["user_user"].get(key)) is not None:
                self._states["user_user"][key] = fold_tie(state, event.seq)
        crowd.add(event.user_id)


def _tuples(ids: Keys) -> list[tuple[int, ...]]:
    return list(zip(*(column.tolist() for column in ids), strict=True))


def _micros(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)
