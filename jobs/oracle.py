"""The best possible, where the truth is known: the synthetic world's own formulas, measured as if they were a model."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from recsys.atomic import replacing
from recsys.constants import N_TIME_SLOTS
from recsys.dataset import world_of
from recsys.errors import NotReady
from recsys.graph import Snapshot
from recsys.settings import Settings
from recsys.training.evaluation import auc
from recsys.training.inputs import Prepared
from recsys.world.truth import Truth, friend_probabilities

LISTS: Final = "oracle.parquet"
KNOWABLE: Final = "knowable"
_LISTED: Final = 500  # users or a few more, spread evenly; one is the user of every example
_USER: Final = 42
_LENGTH: Final = 30  # places of a list
_LISTS_SCHEMA: Final = pa.schema(
    [("user_id", pa.int64()), ("time_slot", pa.int32()), ("place_ids", pa.list_(pa.int64()))]
)
Window = tuple[datetime, datetime]


class Oracle:
    """Ranks places by the true rate of positives in the window, without knowing when the user will go out.

    It knows every taste, liking, rhythm and trend, and none of the dice: neither who will be asked along by friends nor
    what a visit leads to.

    Args:
        truth: of the world. prepared: whom and which window it is measured on.
        of_visited: without the lasting likings of places where a user never was, since nothing in the data tells them:
            closer to what could be known, though it still knows tastes outright, of which a model sees only traces.
    """

    def __init__(self, truth: Truth, prepared: Prepared, *, of_visited: bool = False) -> None:
        snapshot = prepared.snapshot
        self.name = KNOWABLE if of_visited else "oracle"
        self._truth, self._visited = truth, prepared.memory.counts if of_visited else None
        self._window = tuple(int(m.timestamp()) * 1_000_000 for m in (snapshot.as_of, snapshot.until))
        self._user_id, self._place_id = (snapshot.data[kind][f"{kind}_id"].numpy() for kind in ("user", "place"))

    def scores(self, users: Tensor, places: Tensor) -> Tensor:
        """(B,) users and the (C,) places of one city → (B, C) float64."""
        ids = self._place_id[places.numpy()]
        city = self._truth.cities[int(self._truth.places.city[ids[0]])]
        order = np.argsort(city.ids)
        at = order[np.searchsorted(city.ids, ids, sorter=order)]
        known: bool | npt.NDArray[np.bool_] = True
        if self._visited is not None:
            known = np.zeros((len(users), len(city.ids)), dtype=bool)
            known[:, at] = self._visited[users.numpy()][:, places.numpy()].toarray() > 0
        shares = self._truth.shares(
            self._user_id[users.numpy()], city, (self._window[0], self._window[1]), likings=known, positive=True
        )
        return torch.from_numpy(shares[:, at])


def bounds(truth: Truth | None, prepared: Prepared) -> list[Oracle]:
    """What to measure beside a model; nothing where no truth is known."""
    return [] if truth is None else [Oracle(truth, prepared), Oracle(truth, prepared, of_visited=True)]


def known_truth(settings: Settings, source: Mapping[str, Any]) -> Truth | None:
    """The truth of the data in the lake; None where these are not of the world that lies in `data/landing`."""
    if not source.get("synthetic"):
        return None
    try:
        truth = Truth.open(settings.landing)
    except NotReady:
        return None
    return truth if truth.config.source() == source else None


def write_lists(settings: Settings, truth: Truth, window: Window) -> int:
    """Write what the oracle would answer to some users in their own city, to be laid beside the model's lists.

    `reports/oracle.parquet`: user_id, time_slot (null: not said), place_ids, best first.

    Args:
        settings: where reports are.
        truth: of the world.
        window: from when, and until when.

    Returns:
        How many users.
    """
    start, end = (int(moment.timestamp()) * 1_000_000 for moment in window)
    homes = truth.users.city
    step = max(1, len(homes) // _LISTED)
    users = np.arange(_USER % step, len(homes), step)
    rows: dict[str, list[Any]] = {"user_id": [], "time_slot": [], "place_ids": []}
    for city in truth.cities:
        here = users[homes[users] == city.number]
        for slot in (None, *range(N_TIME_SLOTS)) if len(here) else ():
            shares = truth.shares(here, city, (start, end), slot=slot, likings=True, positive=True)
            best = city.ids[np.argsort(-shares, axis=1, kind="stable")[:, :_LENGTH]]
            rows["user_id"] += here.tolist()
            rows["time_slot"] += [slot] * len(here)
            rows["place_ids"] += best.tolist()
    with replacing(settings.reports / LISTS) as aside:
        about = {b"world": world_of(truth.config.source()).encode()}
        pq.write_table(pa.table(rows, schema=_LISTS_SCHEMA.with_metadata(about)), aside, compression="zstd")
    return len(users)


def friend_aucs(settings: Settings, snapshot: Snapshot) -> tuple[float | None, float | None, float | None]:
    """What the true probabilities reach on the labels: compatibility, attendance, attendance among the compatible."""
    known, labels = friend_probabilities(settings.landing), snapshot.friends
    ids = snapshot.data["user"].user_id.numpy()
    n = int(ids.max()) + 1 if len(ids) else 1
    pair = np.sort(np.stack([ids[labels.user_u.numpy()], ids[labels.user_v.numpy()]]), axis=0)
    keys = known["user_u"] * n + known["user_v"]
    order = np.argsort(keys)
    at = order[np.searchsorted(keys, pair[0] * n + pair[1], sorter=order)]
    matches, came = labels.compat.numpy() > 0.5, labels.attend.numpy() > 0.5
    attend = known["p_attend"][at]
    return auc(known["p_compat"][at], matches), auc(attend, came), auc(attend[matches], came[matches])
