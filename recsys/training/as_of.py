"""Nodes and edges as the feature store joins them at a moment: all that the graph network reads of them."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from recsys.aggregates import USER_USER, States, finish_pairs, finish_places, finish_ties, finish_users, pairs_of
from recsys.aggregates.finish import Floats
from recsys.constants import MAX_NEIGHBORHOODS_PER_USER
from recsys.features import FeatureStore, matrix
from recsys.graph import Edges, Nodes
from recsys.taxonomy import Widths

Ints = npt.NDArray[np.int64]
_BEHAVIOR = 5  # of USER_ACTIVITY, in x; the seed's section 3.2.1
_PAIRS_AT_ONCE = 2_000_000
_POPULARITY = 4  # of PLACE_ACTIVITY, in x; the seed's section 3.2.2


def pairs_as_of(
    store: FeatureStore, spine: pa.Table, user_ids: Ints, place_ids: Ints, as_of: datetime
) -> tuple[Edges, Floats]:
    """Of the pairs of a spine those that the store knows at a moment, and ONLINE_PAIR of each."""
    # Finished part by part, each into its place: states as the store has them take ten times the memory of what becomes
    # of them, and parts that are put together at the end twice theirs.
    columns, n = list[npt.NDArray[Any]](), 0
    for first in range(0, max(len(spine), 1), _PAIRS_AT_ONCE):
        part = _pairs(store, spine.slice(first, _PAIRS_AT_ONCE), user_ids, place_ids, as_of)
        if first == 0:
            columns = [np.empty((len(spine), *one.shape[1:]), dtype=one.dtype) for one in part]
        stop = n + len(part[0])
        for column, one in zip(columns, part, strict=True):
            column[n:stop] = one
        n = stop
    source, target, attr, count, age_days, online = (column[:n] for column in columns)
    return Edges(source, target, attr, {"count": count, "age_days": age_days}), online


def _pairs(
    store: FeatureStore, spine: pa.Table, user_ids: Ints, place_ids: Ints, as_of: datetime
) -> tuple[npt.NDArray[Any], ...]:
    now_us = round(as_of.timestamp() * 1e6)
    table = store.historical("train_user_place_v1", spine_of(spine.select(["user_id", "place_id"])), as_of)
    if table["user_place__so_far"].null_count:  # rare, and a filter copies everything
        table = table.filter(table["user_place__so_far"].is_valid())
    history = pairs_of(States.of_arrow(table["user_place__so_far"]), now_us)
    online = finish_pairs(pairs_of(States.of_arrow(table["user_place__state"]), now_us))
    ends = at(user_ids, table["user_id"]), at(place_ids, table["place_id"])
    return (*ends, history.stats, history.count, history.age_days, online)


def ties_as_of(store: FeatureStore, spine: pa.Table, user_ids: Ints, as_of: datetime) -> tuple[Edges, Floats]:
    """Of the ties of a spine those that the store knows at a moment, and ONLINE_TIE of each."""
    table = store.historical("train_user_user_v1", spine_of(spine), as_of)
    table = table.filter(table["user_user__state"].is_valid())
    online = finish_ties(States.of_arrow(table["user_user__state"]))
    attr = np.ascontiguousarray(online[:, : len(USER_USER)])
    return Edges(at(user_ids, table["user_u"]), at(user_ids, table["user_v"]), attr, {}), online


def users_as_of(store: FeatureStore, ids: Ints, as_of: datetime, widths: Widths) -> tuple[Nodes, Tensor]:
    """Users at a moment, and ONLINE_USER of each."""
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


def places_as_of(store: FeatureStore, ids: Ints, as_of: datetime, widths: Widths) -> tuple[Nodes, Tensor]:
    """Places at a moment, and PLACE_ACTIVITY and the known flag of each."""
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


def known_rows(table: pa.Table, ids: dict[str, Ints]) -> pa.Table:
    """Rows all of whose ids existed at the moment: what opened later could not have been recommended."""
    keep = np.ones(len(table), dtype=bool)
    for name, known in ids.items():
        keep &= np.isin(table[name].to_numpy(), known)
    return table.filter(pa.array(keep))


def spine_of(table: pa.Table) -> dict[str, Ints]:
    """A table of ids as the store takes it."""
    return {name: ints(table, name) for name in table.column_names}


def ints(table: pa.Table, name: str) -> Ints:
    """A column of ids."""
    values: Ints = table[name].to_numpy().astype(np.int64)
    return values


def at(ids: Ints, column: pa.ChunkedArray) -> Ints:
    """Row numbers of known ids."""
    # by a hash table, since a binary search for each of millions in no order waits for memory
    rows: Ints = pc.index_in(column, value_set=pa.array(ids)).to_numpy().astype(np.int64)
    return rows
