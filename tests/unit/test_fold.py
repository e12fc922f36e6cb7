"""Folding one event at a time against a recount of all of them, whatever their order; and each counts once."""

from dataclasses import replace
from datetime import timedelta
from math import log1p

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.aggregates import (
    PAIR_TTL,
    RECENT_PLACES,
    WINDOW_DAYS,
    Interaction,
    States,
    finish_places,
    finish_users,
    pairs_of,
)
from recsys.aggregates.fold import fold_pair, fold_place, fold_recent, fold_tie, fold_user

DAY = 86_400_000_000
HOUR = 3_600_000_000


def interaction(seq: int, **changes: object) -> Interaction:
    said = {
        "user_id": 1, "place_id": 2, "at_us": 20_000 * DAY, "dwell_time": 30.0, "num_likes": 0, "num_saves": 0,
        "num_shares": 0, "attended": False, "rating": 1.2, "time_of_day": 0, "day_of_week": 0,
    }  # fmt: skip
    return Interaction(**{**said, **changes}, seq=seq)


@st.composite
def histories(draw: st.DrawFn) -> list[Interaction]:
    """Events of one user at a few places over ten weeks, in the order in which they arrived."""
    n = draw(st.integers(1, 40))
    f32 = st.floats(0, 600, width=32, allow_subnormal=False)  # the log of less than 1e-38 s is none
    return [
        interaction(
            seq + 1,
            place_id=draw(st.integers(0, 3)),
            at_us=(20_000 + draw(st.integers(0, 70))) * DAY + draw(st.integers(0, 23)) * HOUR + seq,
            dwell_time=draw(f32),
            num_likes=draw(st.integers(0, 7)),
            num_saves=draw(st.integers(0, 4)),
            num_shares=draw(st.integers(0, 3)),
            attended=draw(st.booleans()),
            rating=draw(st.floats(1, 5, width=32)),
            time_of_day=draw(st.integers(0, 3)),
            day_of_week=draw(st.integers(0, 1)),
        )
        for seq in range(n)
    ]


def folded(fold, events, state=None):
    for e in events:
        state = fold(state, e)
    return state


def tiles(events, shares) -> list[list[float]]:
    """A loop over the days of the last four weeks, written a second time on purpose."""
    last = max(e.at_us // DAY for e in events)
    out = []
    for day in range(last - WINDOW_DAYS, last + 1):
        own = [e for e in events if e.at_us // DAY == day]
        if own:
            out.append([day, *(sum(share(e) for e in own) for share in shares)])
    return out


def part(i):
    return lambda e: e.time_of_day == i


PARTS = [part(i) for i in range(4)]
USER = [*PARTS, lambda e: e.num_likes, lambda e: e.num_saves, lambda e: e.attended, lambda e: e.rating]
PLACE = [*PARTS, lambda e: e.attended, lambda e: e.rating >= 3.5, lambda e: e.rating]


def assert_activity(state, events, shares):
    # a late event may come after the tiles of its day went: what is kept must be exact from the newest day on
    assert state[:2] == [events[-1].seq, max(e.at_us for e in events)]
    found = np.reshape(state[3:], (-1, len(shares) + 1))
    assert found[:, 0].tolist() == sorted(set(found[:, 0]))
    np.testing.assert_allclose(found, tiles(events, shares), rtol=1e-12)


@given(histories())
def test_activity_of_a_user_and_of_a_place(events: list[Interaction]):
    assert_activity(folded(fold_user, events), events, USER)
    assert_activity(folded(fold_place, events), events, PLACE)


@given(histories(), st.randoms())
def test_the_order_in_which_events_arrive_does_not_matter(events: list[Interaction], random):
    newest = max(e.at_us for e in events)
    lately = [e for e in events if newest - e.at_us <= PAIR_TTL // timedelta(microseconds=1)]
    for fold in (fold_user, fold_place, fold_pair, fold_recent):
        told = renumbered(lately if fold is fold_pair else events)  # a silence begins a pair anew
        shuffled = renumbered(sorted(told, key=lambda _: random.random()))
        one, other = folded(fold, told), folded(fold, shuffled)
        skip = 3 if fold in (fold_user, fold_place) else 1  # seq; and the day of the first event to arrive
        assert one[0] == other[0] == len(told)
        np.testing.assert_allclose(one[skip:], other[skip:], rtol=1e-12)


def renumbered(events: list[Interaction]) -> list[Interaction]:
    return [replace(e, seq=i) for i, e in enumerate(events, 1)]


@given(histories())
def test_a_pair_since_its_last_silence_of_more_than_28_days(history: list[Interaction]):
    history = renumbered(sorted(history, key=lambda e: e.at_us))
    state = folded(fold_pair, history)
    begins = max((i for i in range(1, len(history)) if history[i].at_us - history[i - 1].at_us > 28 * DAY), default=0)
    events = history[begins:]
    assert state[:3] == [len(history), len(events), events[-1].at_us]
    expected = [
        [
            e.rating / 5,
            min(log1p(e.dwell_time) / 6, 1),
            min(e.num_likes / 5, 1),
            min(e.num_saves / 3, 1),
            min(e.num_shares / 2, 1),
            e.attended,
            *(e.time_of_day == i for i in range(4)),
            *(e.day_of_week == i for i in range(2)),
        ]
        for e in events
    ]
    np.testing.assert_allclose(state[3:], np.sum(expected, axis=0), rtol=1e-6)  # shares are float32 values
    pairs = pairs_of(States.of_rows([np.array(state)]), max(e.at_us for e in events))
    np.testing.assert_allclose(pairs.stats[0], np.mean(expected, axis=0), atol=1e-6)


@given(histories())
def test_recent_places(events: list[Interaction]):
    state = folded(fold_recent, [*events, *(e for e in events)])
    newest = sorted(events, key=lambda e: (e.at_us, e.place_id), reverse=True)[:RECENT_PLACES]
    assert state == [len(events), *(x for e in newest for x in (e.place_id, e.at_us))]


def test_recent_places_are_at_most_fifty_and_an_older_one_stays_out():
    events = [interaction(i + 1, place_id=i, at_us=i * DAY) for i in range(60)]
    state = folded(fold_recent, events)
    assert state[1::2] == list(range(59, 9, -1))
    assert fold_recent(state, interaction(61, place_id=7, at_us=7 * DAY))[1:] == state[1:]


@given(histories(), st.integers(0, 40), st.integers(0, 40))
def test_a_batch_that_is_folded_again_changes_nothing(events: list[Interaction], a: int, b: int):
    first, last = sorted((a, b))
    for fold in (fold_user, fold_place, fold_pair, fold_recent):
        once = folded(fold, events)
        assert folded(fold, events[first:], folded(fold, events[:last])) == once
        assert folded(fold, events, once) == once


def test_folding_leaves_the_state_that_it_was_given_as_it_was():
    for fold in (fold_user, fold_place, fold_pair, fold_recent):
        state = fold(None, interaction(1))
        before = list(state)
        fold(state, interaction(2))
        assert state == before


def test_an_event_too_late_for_the_window_counts_in_no_tile():
    state = folded(fold_user, [interaction(1), interaction(2, at_us=(20_000 - WINDOW_DAYS - 1) * DAY)])
    assert state[0] == 2
    assert state[3::9] == [20_000]
    edge = fold_user(state, interaction(3, at_us=(20_000 - WINDOW_DAYS) * DAY))
    assert edge[3::9] == [20_000 - WINDOW_DAYS, 20_000]


def test_a_tie_counts_a_meeting_once():
    state = fold_tie([0.0, 3.0, 0.25, 1.0], 7)
    assert state == [7.0, 4.0, 0.25, 1.0]
    assert fold_tie(state, 7) == fold_tie(state, 6) == state
    assert fold_tie(state, 8) == [8.0, 5.0, 0.25, 1.0]


def test_who_begins_with_an_event_is_known_from_that_day():
    event = interaction(1, attended=True)
    users = finish_users(States.of_rows([np.array(fold_user(None, event))]), event.at_us)
    places = finish_places(States.of_rows([np.array(fold_place(None, event))]), event.at_us)
    assert users[0, -1] == places[0, -1] == 1
