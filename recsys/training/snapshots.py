"""Snapshots of the world through the feature store: features as of a moment, labels after it.

Everything on the left of the moment comes from Feast's point-in-time joins; everything on the right from the lake.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from recsys.aggregates import TOGETHER
from recsys.constants import SLOT_BY_DAY_AND_TIME, SLOT_NOT_SAID
from recsys.errors import DataError
from recsys.features import FeatureStore
from recsys.graph import (
    Companions,
    FriendLabels,
    NewTies,
    Past,
    PlaceLabels,
    Snapshot,
    Visits,
    build_graph,
)
from recsys.lake import Lake
from recsys.training.as_of import (
    Ints,
    at,
    ints,
    known_rows,
    pairs_as_of,
    places_as_of,
    ties_as_of,
    users_as_of,
)

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
    user_ids = ints(lake.query("SELECT user_id FROM users WHERE as_of <= $as_of ORDER BY 1", when), "user_id")
    place_ids = ints(lake.query("SELECT place_id FROM places WHERE as_of <= $as_of ORDER BY 1", when), "place_id")
    widths, now_us = lake.taxonomy().widths, round(as_of.timestamp() * 1e6)
    users, user_online = users_as_of(store, user_ids, as_of, widths)
    places, place_online = places_as_of(store, place_ids, as_of, widths)

    known = lake.query(
        """SELECT user_id, place_id, count(*)::FLOAT AS n, epoch_us(max("timestamp")) AS last_us
           FROM interactions WHERE "timestamp" < $as_of GROUP BY ALL ORDER BY user_id, place_id""",
        when,
    )
    known = known_rows(known, {"user_id": user_ids, "place_id": place_ids})
    past = Past(
        torch.from_numpy(at(user_ids, known["user_id"]) * len(place_ids) + at(place_ids, known["place_id"])),
        torch.from_numpy(known["n"].to_numpy().copy()),
        torch.from_numpy(((now_us - known["last_us"].to_numpy()) / _DAY_US).astype(np.float32)),
    )
    spine = known.select(["user_id", "place_id"])
    del known
    pairs, pair_online = pairs_as_of(store, spine, user_ids, place_ids, as_of)
    spine = lake.query("SELECT user_u, user_v FROM user_user_edges WHERE as_of <= $as_of ORDER BY ALL", when)
    spine = known_rows(spine, {"user_u": user_ids, "user_v": user_ids})  # a profile may be later than a friendship
    ties, tie_online = ties_as_of(store, spine, user_ids, as_of)

    return Snapshot(
        as_of=as_of,
        until=until,
        widths=widths,
        data=build_graph(users, places, pairs, ties, widths),
        user_online=user_online,
        place_online=place_online,
        pair_keys=torch.from_numpy(pairs.source * len(place_ids) + pairs.target),
        pair_online=torch.from_numpy(pair_online),
        tie_keys=torch.from_numpy(ties.source * len(user_ids) + ties.target),
        tie_online=torch.from_numpy(tie_online),
        past=past,
        visits=_visits(lake, user_ids, place_ids, as_of),
        labels=_labels(lake, user_ids, place_ids, as_of, until),
        friends=_friends(lake, user_ids, as_of, until),
        new_ties=_new_ties(lake, user_ids, as_of, until),
        companions=_companions(lake, user_ids, place_ids, as_of, until),
    )


def _labels(lake: Lake, users: Ints, places: Ints, as_of: datetime, until: datetime) -> PlaceLabels:
    table = lake.query(
        """SELECT user_id, place_id, implicit_rating, time_of_day_bucket, day_of_week_bucket FROM interactions
           WHERE "timestamp" >= $as_of AND "timestamp" < $until ORDER BY "timestamp", user_id, place_id""",
        {"as_of": as_of, "until": until},
    )
    table = known_rows(table, {"user_id": users, "place_id": places})
    return PlaceLabels(
        torch.from_numpy(at(users, table["user_id"])),
        torch.from_numpy(at(places, table["place_id"])),
        torch.from_numpy(table["implicit_rating"].to_numpy().astype(np.float32)),
        _slots(table, "time_of_day_bucket", "day_of_week_bucket"),
    )


def _friends(lake: Lake, users: Ints, as_of: datetime, until: datetime) -> FriendLabels:
    table = lake.query(
        """SELECT user_u, user_v, label_compat, label_attend FROM friend_labels
           WHERE as_of >= $as_of AND as_of < $until ORDER BY user_u, user_v""",
        {"as_of": as_of, "until": until},
    )
    table = known_rows(table, {"user_u": users, "user_v": users})
    return FriendLabels(
        torch.from_numpy(at(users, table["user_u"])),
        torch.from_numpy(at(users, table["user_v"])),
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
    table = known_rows(table, {"user_id": users, "place_id": places})
    return Visits(
        torch.from_numpy(at(users, table["user_id"])),
        torch.from_numpy(at(places, table["place_id"])),
        torch.from_numpy(table["day"].to_numpy().astype(np.int64)),
    )


def _new_ties(lake: Lake, users: Ints, as_of: datetime, until: datetime) -> NewTies:
    table = lake.query(
        "SELECT user_u, user_v FROM user_user_edges WHERE as_of > $as_of AND as_of <= $until ORDER BY ALL",
        {"as_of": as_of, "until": until},
    )
    table = known_rows(table, {"user_u": users, "user_v": users})
    return NewTies(*(torch.from_numpy(at(users, table[name])) for name in ("user_u", "user_v")))


def _companions(lake: Lake, users: Ints, places: Ints, as_of: datetime, until: datetime) -> Companions:
    table = lake.query(f"WITH {TOGETHER} SELECT * FROM together ORDER BY ALL", {"start": as_of, "end": until})
    table = known_rows(table, {"user_u": users, "user_v": users, "place_id": places})
    return Companions(
        torch.from_numpy(at(users, table["user_u"])),
        torch.from_numpy(at(users, table["user_v"])),
        torch.from_numpy(at(places, table["place_id"])),
        _slots(table, "time_of_day", "day_of_week"),
    )


def _slots(table: pa.Table, time_of_day: str, day_of_week: str) -> Tensor:
    slots = np.array(SLOT_BY_DAY_AND_TIME, dtype=np.int64)
    return torch.from_numpy(slots[table[day_of_week].to_numpy(), table[time_of_day].to_numpy()])
