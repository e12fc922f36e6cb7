"""What a row of a feature view must be, before the online store and training read it.

The views are computed, so a single broken row is a mistake of ours or of a definition: it stops the job.
"""

from collections.abc import Callable, Mapping
from typing import Final

import pyarrow as pa

from expectations.rules import Bounds, derived, elements, equal, known, known_since, present, text, unique, within
from recsys.aggregates import (
    ACTIVITY_HEAD,
    PAIR_HEAD,
    PLACE_COUNTERS,
    RECENT_HEAD,
    RECENT_PLACES,
    TIE_STATE,
    USER_COUNTERS,
    USER_PLACE,
    WINDOW_DAYS,
)
from recsys.constants import N_PRICE_BANDS, N_TIME_SLOTS
from recsys.quality import Expectation, Suite
from recsys.schemas import TIMESTAMP, Column, Kind, Table

_EMPTY = "An empty cell would be served as if it were known to be nothing."
_WHO = "Features of somebody unknown are read by nobody, and hide that a row went to the wrong one."
_ONCE = "Two rows of one key and moment: history would take one, the online store perhaps the other."
_COUNTS = "Counts and sums of what happened: below zero, or not a number, is a mistake of a definition."
_LAYOUT = "Positions have meanings; at another length every value would be taken for its neighbour."
_ORDER = "Windows are cut off the end of the days: out of order they would take the wrong ones."
_WEIGHTS = "A distribution over the same names as the model's: else the two do not compare."
_WHERE = "It indexes a table whose size is the data set's own."
_DAILY = "A day's row is stamped with the midnight after it: at another moment it would hold part of the next day."
_PAST = "A row stamped t may use only what happened before t: anything else is the future leaking into the past."

_STAMP: Final = {"event_timestamp": Column(TIMESTAMP, "moment from which on the row is known")}


def _id(references: str) -> Column:
    return Column(pa.int64(), "id", low=0, references=references)


def _state(size: int | None = None) -> dict[str, Column]:
    return {"state": Column(pa.list_(pa.float64()), "counts and sums so far", low=0, length=size)}


_PAIR: Final = _state(len(PAIR_HEAD) + len(USER_PLACE))


def _weights(length: Kind | None) -> Column:
    return Column(pa.list_(pa.float32()), "weight", low=0, high=1, length=length, total=1)


_INDEX: Final = Column(pa.int64(), "index", low=0)
_USER: Final = {"user_id": _id("users.user_id")}
_PLACE: Final = {"place_id": _id("places.place_id")}

CONTRACTS: Final[Mapping[str, Table]] = {
    name: Table(name, {**columns, **_STAMP}, (*key, "event_timestamp"), about)
    for name, key, columns, about in (
        (
            "user_profile", ("user_id",),
            {
                **_USER,
                "name": Column(pa.string(), "text"),
                "home_city_id": _INDEX,
                "home_neighborhood_id": _INDEX,
                "cat_pref": _weights("categories"),
                "fine_pref": _weights("tags"),
                "vibe_pref": _weights("vibes"),
                "area_ids": Column(pa.list_(pa.int64()), "neighborhood", low=0),
                "area_weights": _weights(None),
            },
            "Who a user is and says to like.",
        ),
        ("user_activity", ("user_id",), {**_USER, **_state()}, "What a user did lately."),
        ("user_recent", ("user_id",), {**_USER, **_state()}, "Where a user was or looked lately."),
        (
            "place_profile", ("place_id",),
            {
                **_PLACE,
                "name": Column(pa.string(), "text"),
                "city_id": _INDEX,
                "neighborhood_id": _INDEX,
                "category_one_hot": Column(pa.list_(pa.float32()), "weight", low=0, high=1, length="categories"),
                "fine_tag_vector": _weights("tags"),
                "price_band": Column(pa.int64(), "price band", low=0, high=N_PRICE_BANDS - 1),
                "typical_time_slot": Column(pa.int64(), "time slot", low=0, high=N_TIME_SLOTS - 1),
            },
            "What a place is.",
        ),
        ("place_activity", ("place_id",), {**_PLACE, **_state()}, "How a place fares lately."),
        (
            "user_place", ("user_id", "place_id"),
            {**_USER, **_PLACE, **_PAIR, "so_far": _PAIR["state"]},
            "What a user did at a place so far.",
        ),
        (
            "user_user", ("user_u", "user_v"),
            {"user_u": _id("users.user_id"), "user_v": _id("users.user_id"), **_state(len(TIE_STATE))},
            "The tie of two users so far.",
        ),
    )
}  # fmt: skip


def _suite(view: str) -> Callable[[Bounds], Suite]:
    def suite(bounds: Bounds) -> Suite:
        table = CONTRACTS[view]
        limits = {"home_city_id": bounds.cities, "city_id": bounds.cities}
        limits |= {"home_neighborhood_id": bounds.neighborhoods, "neighborhood_id": bounds.neighborhoods}
        rules: list[Expectation] = [
            *present(table, *table.columns, why=_EMPTY),
            unique(table, why=_ONCE),
            known_since(bounds, "event_timestamp"),
        ]
        for name, column in table.columns.items():
            if column.references:
                rules += known(table, name, why=_WHO)
            elif pa.types.is_list(column.type):
                rules += elements(table, name, bounds, why=_WEIGHTS if column.total else _COUNTS)
            elif pa.types.is_string(column.type):
                rules += text(name, why="Answers call people and places by their names.")
            elif column.low is not None:
                rules += within(table, name, why=_WHERE, below=limits.get(name))
        rules += _EXTRA.get(view, ())
        return Suite(table, tuple(rules), warn_above=0.0, stop_above=0.0)

    return suite


_MIDNIGHT: Final = derived(
    "event_timestamp is a midnight",
    "event_timestamp.time",
    'epoch_us("event_timestamp") % 86400000000',
    why=_DAILY,
    shows=("event_timestamp",),
    max_value=0,
)


def _before(last: str) -> Expectation:
    return derived(
        "the last event is before event_timestamp",
        "last_at_us.ahead",
        f'epoch_us("event_timestamp") - {last}',
        why=_PAST,
        shows=("event_timestamp",),
        min_value=1,
    )


def _tiles(head: int, width: int, most: int) -> Expectation:
    """After the head come whole rows, no more than there may be."""
    rest = f'(len("state") - {head})'
    return derived(
        f"state is {head} values and up to {most} x {width}",
        "state.rest",
        f"CASE WHEN {rest} BETWEEN 0 AND {most * width} THEN {rest} % {width} ELSE -1 END",
        why=_LAYOUT,
        shows=("event_timestamp",),
        min_value=0,
        max_value=0,
    )


def _ordered(head: int, width: int) -> Expectation:
    days = f'list_slice("state", {head + 1}, len("state"), {width})'
    return derived(
        "days ascend",
        "state.unordered",
        f"({days} != list_sort({days}))::INT",
        why=_ORDER,
        shows=("event_timestamp",),
        max_value=0,
    )


def _activity(counters: int) -> tuple[Expectation, ...]:
    head, width = len(ACTIVITY_HEAD), 1 + counters
    return (
        _MIDNIGHT,
        _before(f'"state"[{ACTIVITY_HEAD.index("last_at_us") + 1}]'),
        _tiles(head, width, WINDOW_DAYS + 1),
        _ordered(head, width),
    )


_EXTRA: Final[Mapping[str, tuple[Expectation, ...]]] = {
    "user_profile": (
        equal("area_ids", "area_weights", 'len("area_weights")', of='len("area_ids")', why="A weight for each area."),
    ),
    "user_activity": _activity(len(USER_COUNTERS)),
    "place_activity": _activity(len(PLACE_COUNTERS)),
    "user_recent": (_MIDNIGHT, _before('"state"[3]'), _tiles(len(RECENT_HEAD), 2, RECENT_PLACES)),
    "user_place": (
        _MIDNIGHT,
        _before(f'"state"[{PAIR_HEAD.index("last_at_us") + 1}]'),
        derived(
            "there is at least one interaction",
            "state.count",
            f'"state"[{PAIR_HEAD.index("count") + 1}]',
            why="A pair without one is no edge, and its means would divide by nothing.",
            min_value=1,
        ),
    ),
}

VIEW_SUITES: Final[Mapping[str, Callable[[Bounds], Suite]]] = {view: _suite(view) for view in CONTRACTS}
