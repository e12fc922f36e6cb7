"""One event → the states that it changes: what `history` computes from all events, a step at a time.

Every function takes a state (a list of floats, None where there is none yet) and gives the state after the event. A
state remembers in `seq` how far in the event log it was folded: an event that is in it already changes nothing, so a
batch that was cut off is simply folded again. Events may arrive late: one that is older than what a state keeps leaves
it as it is.
"""

from bisect import bisect_left
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from recsys.aggregates.definitions import (
    ACTIVITY_HEAD,
    DAY_US,
    PAIR_HEAD,
    PAIR_TTL,
    PLACE_COUNTERS,
    RECENT_HEAD,
    RECENT_PLACES,
    USER_COUNTERS,
    USER_PLACE,
    WINDOW_DAYS,
    Counter,
    Interaction,
)

State = list[float]
_SILENCE_US: Final = PAIR_TTL // timedelta(microseconds=1)


def fold_user(state: State | None, event: Interaction) -> State:
    """A state of `user_activity` after an event of the user."""
    return _activity(state, event, USER_COUNTERS)


def fold_place(state: State | None, event: Interaction) -> State:
    """A state of `place_activity` after an event at the place."""
    return _activity(state, event, PLACE_COUNTERS)


def fold_pair(state: State | None, event: Interaction) -> State:
    """A state of `user_place` after an event of the pair; a new pair begins with it, and one that was long silent."""
    head = len(PAIR_HEAD)
    if state is not None and (event.seq <= state[0] or state[2] - event.at_us > _SILENCE_US):
        return state
    if state is None or event.at_us - state[2] > _SILENCE_US:
        state = [0.0] * (head + len(USER_PLACE))
    sums = [old + counter.fold(event) for old, counter in zip(state[head:], USER_PLACE, strict=True)]
    return [float(event.seq), state[1] + 1, max(state[2], float(event.at_us)), *sums]


def fold_recent(state: State | None, event: Interaction) -> State:
    """A state of `user_recent` after an event of the user."""
    head = len(RECENT_HEAD)
    if state is None:
        state = [0.0]
    if event.seq <= state[0]:
        return state
    visits = list(zip(state[head::2], state[head + 1 :: 2], strict=True))
    new = (float(event.place_id), float(event.at_us))
    at = bisect_left(visits, (-new[1], -new[0]), key=lambda visit: (-visit[1], -visit[0]))
    visits.insert(at, new)
    return [float(event.seq), *(x for visit in visits[:RECENT_PLACES] for x in visit)]


def fold_tie(state: State, seq: int) -> State:
    """A state of `user_user` after the two attended the same place on the same day for the first time that day."""
    if seq <= state[0]:
        return state
    return [float(seq), state[1] + 1, *state[2:]]


def _activity(state: State | None, event: Interaction, counters: Sequence[Counter]) -> State:
    head, width, day = len(ACTIVITY_HEAD), len(counters) + 1, event.at_us // DAY_US
    if state is None:
        state = [0.0, 0.0, float(day)]
    if event.seq <= state[0]:
        return state
    tiles = [state[i : i + width] for i in range(head, len(state), width)]
    counts = [counter.fold(event) for counter in counters]
    at = bisect_left(tiles, day, key=lambda tile: int(tile[0]))
    if at < len(tiles) and tiles[at][0] == day:
        tiles[at] = [float(day), *(old + new for old, new in zip(tiles[at][1:], counts, strict=True))]
    else:
        tiles.insert(at, [float(day), *counts])
    oldest = tiles[-1][0] - WINDOW_DAYS
    last = max(state[1], float(event.at_us))
    return [float(event.seq), last, state[2], *(x for tile in tiles if tile[0] >= oldest for x in tile)]
