"""Snapshots of the world through the feature store: features as of a moment, labels after it.

Everything on the left of the moment comes from Feast's point-in-time joins; everything on the right from the lake.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from recsys.aggregates import (
    TOGETHER,
    USER_USER,
    States,
    finish_pairs,
    finish_places,
    finish_ties,
    finish_users,
    pairs_of,
)
from recsys.aggregates.finish import Floats
from recsys.constants import MAX_NEIGHBORHOODS_PER_USER, SLOT_BY_DAY_AND_TIME, SLOT_NOT_SAID
from recsys.errors import DataError
from recsys.features import FeatureStore, matrix
from recsys.graph import (
    Companions,
    Edges,
    FriendLabels,
    NewTies,
    Nodes,
    Past,
    PlaceLabels,
    Snapshot,
    Visits,
    build_graph,
)
from recsys.lake import Lake
from recsys.taxonomy import Widths

Ints = npt.NDArray[np.int64]
_BEHAVIOR = 5  # of USER_ACTIVITY, in x; the seed's section 3.2.1
_POPULARITY = 4  # of PLACE_ACTIVITY, in x; the seed's section 3.2.2


_DAY_US = 86_400_000_000
_WEEK = timedelta(days=7)
_TRAIN_WINDOWS = 5
_PARTS = 10  # a window is a tenth of the history in whole weeks, so that the labels of sparse data are enough


@dataclass(frozen=True)
class Split:
    """Cuts in time; each window starts where its graph ends, so no label is ever an edge of its own graph.

    Attributes:
        train: windows whose labels are learned.
        valid: the window after them, for early stopping.
        test: the last weeks, for the figures that are reported; empty where what comes after `end` tests.
        end: end of the data: embeddings that are served come from the graph as of then.
    """

    train: tuple[tuple[datetime, datetime], ...]
    valid: tuple[datetime, datetime]
    test: tuple[datetime, datetime]
    end: datetime


def split_weeks(start: datetime, end: datetime, *, tested: bool = True) -> Split:
    """Weeks counted from the end of the data: the last sixth tests, a window before validates, up to five train.

    Args:
        start, end: midnights.
        tested: whether the last weeks are kept from training to report figures; a version that looks back is tested
            by what happened since.

    Raises:
        DataError: there are fewer than five weeks.
    """
    weeks = (end - start) // _WEEK
    test = max(1, weeks // 6) if tested else 0
    width = max(1, weeks // _PARTS)
    last = weeks - test - width  # weeks before the validation window
    warm_up = max(2, width)
    if last <= warm_up:
        raise DataError(f"training needs at least five weeks of interactions (got {weeks}, {start} to {end})")
    cut = [end - _WEEK * n for n in range(weeks + 1)][::-1]  # cut[n]: n whole weeks are over
    begins = sorted(range(last - width, warm_up - 1, -width)[:_TRAIN_WINDOWS]) or [last - 1]
    train = tuple((cut[n], cut[min(n + width, last)]) for n in begins)
    return Split(train, (cut[last], cut[last + width]), (cut[weeks - test], end), end)


def take_snapshot(lake: Lake, store: FeatureStore, as_of: datetime, until: datetime) -> Snapshot:
    """The world as of a moment, and what happened in [as_of, until).

    Args:
        lake: accepted tables: which ids and pairs were known, and the labels.
        store: point-in-time features of those.
        as_of: the moment, a midnight in UTC.
        until: end of the window of labels; `as_of` itself for none.
    """
    when = {"as_of": as_of}
    user_ids = _ints(lake.query("SELECT user_id FROM users WHERE as_of <= $as_of ORDER BY 1", when), "user_id")
    place_ids = _ints(lake.query("SELECT place_id FROM places WHERE as_of <= $as_of ORDER BY 1", when), "place_id")
    widths, now_us = lake.taxonomy().widths, round(as_of.timestamp() * 1e6)
    users, user_online = _users(store, user_ids, as_of, widths)
    places, place_online = _places(store, place_ids, as_of, widths)

    known = lake.query(
        """SELECT user_id, place_id, count(*)::FLOAT AS n, epoch_us(max("timestamp")) AS last_us
           FROM interactions WHERE "timestamp" < $as_of GROUP BY ALL ORDER BY user_id, place_id""",
        when,
    )
    known = _known(known, {"user_id": user_ids, "place_id": place_ids})
    past = Past(
        torch.from_numpy(_at(user_ids, known["user_id"]) * len(place_ids) + _at(place_ids, known["place_id"])),
        torch.from_numpy(known["n"].to_numpy().copy()),
        torch.from_numpy(((now_us - known["last_us"].to_numpy()) / _DAY_US).astype(np.float32)),
    )
    table = store.historical("train_user_place_v1", _spine(known.select(["user_id", "place_id"])), as_of)
    table = table.filter(table["user_place__so_far"].is_valid())
    source, target = _at(user_ids, table["user_id"]), _at(place_ids, table["place_id"])
    history = pairs_of(States.of_arrow(table["user_place__so_far"]), now_us)
    pairs = Edges(source, target, history.stats, {"count": history.count, "age_days": history.age_days})
    pair_online = finish_pairs(pairs_of(States.of_arrow(table["user_place__state"]), now_us))

    spine = lake.query("SELECT user_u, user_v FROM user_user_edges WHERE as_of <= $as_of ORDER BY ALL", when)
    table = store.historical("train_user_user_v1", _spine(spine), as_of)
    table = table.filter(table["user_user__state"].is_valid())
    u, v = _at(user_ids, table["user_u"]), _at(user_ids, table["user_v"])
    tie_online = finish_ties(States.of_arrow(table["user_user__state"]))
    ties = Edges(u, v, np.ascontiguousarray(tie_online[:, : len(USER_USER)]), {})

    return Snapshot(
        as_of=as_of,
        until=until,
        widths=widths,
        data=build_graph(users, places, pairs, ties, widths),
        user_online=user_online,
        place_online=place_online,
        pair_keys=torch.from_numpy(source * len(place_ids) + target),
        pair_online=torch.from_numpy(pair_online),
        tie_keys=torch.from_numpy(u * len(user_ids) + v),
        tie_online=torch.from_numpy(tie_online),
        past=past,
        visits=_visits(lake, user_ids, place_ids, as_of),
        labels=_labels(lake, user_ids, place_ids, as_of, until),
        friends=_friends(lake, user_ids, as_of, until),
        new_ties=_new_ties(lake, user_ids, as_of, until),
        companions=_companions(lake, user_ids, place_ids, as_of, until),
    )


def _users(store: FeatureStore, ids: Ints, as_of: datetime, widths: Widths) -> tuple[Nodes, Tensor]:
    table = store.historical("train_users_v1", {"user_id": ids}, as_of)
    activity = _activity(table["user_activity__state"], as_of, finish_users)
    areas = _padded(table["user_profile__area_ids"], -1).astype(np.int64)
    blocks: dict[str, npt.NDArray[Any]] = {
        "home_city_id": _column(table, "user_profile__home_city_id"),
        "home_neighborhood_id": _column(table, "user_profile__home_neighborhood_id"),
        "cat_pref": matrix(table["user_profile__cat_pref"], widths.categories),
        "fine_pref": matrix(table["user_profile__fine_pref"], widths.tags),
        "vibe_pref": matrix(table["user_profile__vibe_pref"], widths.vibes),
        "area_freqs": _padded(table["user_profile__area_weights"], 0),
        "behavior": activity[:, :_BEHAVIOR],
    }
    return Nodes(ids, blocks, areas), torch.from_numpy(activity)


def _places(store: FeatureStore, ids: Ints, as_of: datetime, widths: Widths) -> tuple[Nodes, Tensor]:
    table = store.historical("train_places_v1", {"place_id": ids}, as_of)
    activity = _activity(table["place_activity__state"], as_of, finish_places)
    blocks: dict[str, npt.NDArray[Any]] = {
        "city_id": _column(table, "place_profile__city_id"),
        "neighborhood_id": _column(table, "place_profile__neighborhood_id"),
        "category_one_hot": matrix(table["place_profile__category_one_hot"], widths.categories),
        "fine_tag_vector": matrix(table["place_profile__fine_tag_vector"], widths.tags),
        "price_band": _column(table, "place_profile__price_band"),
        "typical_time_slot": _column(table, "place_profile__typical_time_slot"),
        "popularity": activity[:, :_POPULARITY],
    }
    return Nodes(ids, blocks), torch.from_numpy(activity)


def _activity(column: pa.ChunkedArray, as_of: datetime, finish: Callable[[States, int], Floats]) -> Floats:
    return finish(States.of_arrow(column), round(as_of.timestamp() * 1e6))


def _column(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    # a null becomes NaN, and the graph refuses it with the id and the column
    values: npt.NDArray[np.float64] = table[name].to_numpy().astype(np.float64)
    return values


def _padded(column: pa.ChunkedArray, fill: float) -> npt.NDArray[np.float64]:
    """Lists of any length → (N, 5): the first five, filled up."""
    array = column.combine_chunks()
    out = np.full((len(array), MAX_NEIGHBORHOODS_PER_USER), fill, dtype=np.float64)
    offsets, values = np.asarray(array.offsets), np.asarray(array.values, dtype=np.float64)
    for k in range(MAX_NEIGHBORHOODS_PER_USER):
        has = offsets[:-1] + k < offsets[1:]
        out[has, k] = values[offsets[:-1][has] + k]
    return out


def _labels(lake: Lake, users: Ints, places: Ints, as_of: datetime, until: datetime) -> PlaceLabels:
    table = lake.query(
        """SELECT user_id, place_id, implicit_rating, time_of_day_bucket, day_of_week_bucket FROM interactions
           WHERE "timestamp" >= $as_of AND "timestamp" < $until ORDER BY "timestamp", user_id, place_id""",
        {"as_of": as_of, "until": until},
    )
    table = _known(table, {"user_id": users, "place_id": places})
    return PlaceLabels(
        torch.from_numpy(_at(users, table["user_id"])),
        torch.from_numpy(_at(places, table["place_id"])),
        torch.from_numpy(table["implicit_rating"].to_numpy().astype(np.float32)),
        _slots(table, "time_of_day_bucket", "day_of_week_bucket"),
    )


def _friends(lake: Lake, users: Ints, as_of: datetime, until: datetime) -> FriendLabels:
    table = lake.query(
        """SELECT user_u, user_v, label_compat, label_attend FROM friend_labels
           WHERE as_of >= $as_of AND as_of < $until ORDER BY user_u, user_v""",
        {"as_of": as_of, "until": until},
    )
    table = _known(table, {"user_u": users, "user_v": users})
    return FriendLabels(
        torch.from_numpy(_at(users, table["user_u"])),
        torch.from_numpy(_at(users, table["user_v"])),
        torch.from_numpy(table["label_compat"].to_numpy().astype(np.float32)),
        torch.from_numpy(table["label_attend"].to_numpy().astype(np.float32)),
        torch.full((len(table),), SLOT_NOT_SAID),
    )


def _visits(lake: Lake, users: Ints, places: Ints, as_of: datetime) -> Visits:
    table = lake.query(
        """SELECT DISTINCT user_id, place_id, epoch_us("timestamp"::DATE) // 86400000000 AS day FROM interactions
           WHERE attended AND "timestamp" < $as_of ORDER BY ALL""",
        {"as_of": as_of},
    )
    table = _known(table, {"user_id": users, "place_id": places})
    return Visits(
        torch.from_numpy(_at(users, table["user_id"])),
        torch.from_numpy(_at(places, table["place_id"])),
        torch.from_numpy(table["day"].to_numpy().astype(np.int64)),
    )


def _new_ties(lake: Lake, users: Ints, as_of: datetime, until: datetime) -> NewTies:
    table = lake.query(
        "SELECT user_u, user_v FROM user_user_edges WHERE as_of > $as_of AND as_of <= $until ORDER BY ALL",
        {"as_of": as_of, "until": until},
    )
    table = _known(table, {"user_u": users, "user_v": users})
    return NewTies(*(torch.from_numpy(_at(users, table[name])) for name in ("user_u", "user_v")))


def _companions(lake: Lake, users: Ints, places: Ints, as_of: datetime, until: datetime) -> Companions:
    table = lake.query(f"WITH {TOGETHER} SELECT * FROM together ORDER BY ALL", {"start": as_of, "end": until})
    table = _known(table, {"user_u": users, "user_v": users, "place_id": places})
    return Companions(
        torch.from_numpy(_at(users, table["user_u"])),
        torch.from_numpy(_at(users, table["user_v"])),
        torch.from_numpy(_at(places, table["place_id"])),
        _slots(table, "time_of_day", "day_of_week"),
    )


def _known(table: pa.Table, ids: dict[str, Ints]) -> pa.Table:
    """Rows all of whose ids existed at the moment: what opened later could not have been recommended."""
    keep = np.ones(len(table), dtype=bool)
    for name, known in ids.items():
        keep &= np.isin(table[name].to_numpy(), known)
    return table.filter(pa.array(keep))


def _slots(table: pa.Table, time_of_day: str, day_of_week: str) -> Tensor:
    slots = np.array(SLOT_BY_DAY_AND_TIME, dtype=np.int64)
    return torch.from_numpy(slots[table[day_of_week].to_numpy(), table[time_of_day].to_numpy()])


def _spine(table: pa.Table) -> dict[str, Any]:
    return {name: _ints(table, name) for name in table.column_names}


def _ints(table: pa.Table, name: str) -> Ints:
    values: Ints = table[name].to_numpy().astype(np.int64)
    return values


def _at(ids: Ints, column: pa.ChunkedArray) -> Ints:
    """Row numbers of known ids."""
    rows: Ints = np.searchsorted(ids, column.to_numpy()).astype(np.int64)
    return rows
