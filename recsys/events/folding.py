"""Events → the states online, each exactly once.

A state remembers how far in the log it was folded, so events that were half written before a crash are folded again and
change nothing twice. Of who met whom the same holds: a crowd (who attended a place on a day, and by which event first)
is joined only after the ties have changed, and an event that is in it already is the one that joined.
"""

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import numpy.typing as npt

from recsys.aggregates import ACTIVITY_HEAD, PAIR_HEAD, RECENT_HEAD, Interaction
from recsys.aggregates.definitions import DAY_US
from recsys.aggregates.fold import State, fold_pair, fold_place, fold_recent, fold_tie, fold_user
from recsys.aggregates.states import Doubles
from recsys.features import LiveStates, Wanted

# where in a state the moment of its last event is
_LAST_AT = {
    "user_activity": ACTIVITY_HEAD.index("last_at_us"),
    "place_activity": ACTIVITY_HEAD.index("last_at_us"),
    "user_place": PAIR_HEAD.index("last_at_us"),
    "user_recent": len(RECENT_HEAD) + 1,
}
Changed = tuple[Wanted, Sequence[Doubles], npt.NDArray[np.int64]]


def fold_events(live: LiveStates, events: Sequence[Interaction], *, now: datetime, wall: datetime) -> None:
    """Read the states that some events touch, fold, write them; a round trip each, more where people attended.

    Args:
        live: the states; the caller holds the log's fold lock.
        events: in the order of the log, from the first that may not be in the states.
        now: the moment as of which the data are.
        wall: the moment by the server's clock.

    Raises:
        FeatureStoreUnavailable: Redis went away; folding the same events again completes it.
    """
    users = list(dict.fromkeys(e.user_id for e in events))
    places = list(dict.fromkeys(e.place_id for e in events))
    pairs = list(dict.fromkeys((e.user_id, e.place_id) for e in events))
    wanted = [
        live.wanted("user_activity", user_id=_ints(users)),
        live.wanted("user_recent", user_id=_ints(users)),
        live.wanted("place_activity", place_id=_ints(places)),
        live.wanted("user_place", user_id=_ints([u for u, _ in pairs]), place_id=_ints([p for _, p in pairs])),
    ]
    states = [[None if s is None else s.tolist() for s in found] for found in live.read(wanted)]
    user, recent = (dict[int, State | None](zip(users, states[i], strict=True)) for i in (0, 1))
    place = dict[int, State | None](zip(places, states[2], strict=True))
    pair = dict[tuple[int, int], State | None](zip(pairs, states[3], strict=True))
    for e in events:
        user[e.user_id] = fold_user(user[e.user_id], e)
        recent[e.user_id] = fold_recent(recent[e.user_id], e)
        place[e.place_id] = fold_place(place[e.place_id], e)
        pair[e.user_id, e.place_id] = fold_pair(pair[e.user_id, e.place_id], e)
    after = (user.values(), recent.values(), place.values(), pair.values())
    changed = [_changed(w, [np.array(state) for state in now_]) for w, now_ in zip(wanted, after, strict=True)]
    ties, joined = _meet(live, [e for e in events if e.attended])
    live.write([*changed, *ties], end=now, wall=wall)
    live.join_crowds(joined)


def _meet(live: LiveStates, attended: Sequence[Interaction]) -> tuple[list[Changed], list[tuple[int, int, int, int]]]:
    """Ties of those who attended a place on a day with those who were there before them, and who is there now."""
    if not attended:
        return [], []
    keys = list(dict.fromkeys((e.place_id, e.at_us // DAY_US) for e in attended))
    crowds = dict(zip(keys, live.crowds(keys), strict=True))
    joined: list[tuple[int, int, int, int]] = []
    met: list[tuple[tuple[int, int], Interaction]] = []
    for e in attended:
        key = e.place_id, e.at_us // DAY_US
        crowd = crowds[key]
        if crowd.setdefault(e.user_id, e.seq) != e.seq:
            continue  # not their first event there that day
        joined.append((*key, e.user_id, e.seq))
        others = (other for other, seq in crowd.items() if other != e.user_id and seq < e.seq)
        met += [((min(e.user_id, other), max(e.user_id, other)), e) for other in others]
    if not met:
        return [], joined
    pairs = list(dict.fromkeys(pair for pair, _ in met))
    asked = live.wanted("user_user", user_u=_ints([u for u, _ in pairs]), user_v=_ints([v for _, v in pairs]))
    (found,) = live.read([asked])
    states = {pair: state.tolist() for pair, state in zip(pairs, found, strict=True) if state is not None}
    if not states:
        return [], joined
    seconds = dict.fromkeys(states, 0)
    for pair, e in met:
        if pair in states:
            states[pair] = fold_tie(states[pair], e.seq)
            seconds[pair] = max(seconds[pair], e.at_us // 1_000_000)
    ends = live.wanted("user_user", user_u=_ints([u for u, _ in states]), user_v=_ints([v for _, v in states]))
    return [(ends, [np.array(s) for s in states.values()], _ints(list(seconds.values())))], joined


def _changed(wanted: Wanted, states: Sequence[Doubles]) -> Changed:
    at = _LAST_AT[wanted.view]
    return wanted, states, _ints([int(state[at]) // 1_000_000 for state in states])


def _ints(values: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.asarray(values, dtype=np.int64)
