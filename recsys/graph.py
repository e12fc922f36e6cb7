"""Point-in-time feature sets → PyG `HeteroData` and what happened after: one snapshot of the world.

A snapshot's graph and features are as of its moment, its labels lie in the window after it: a supervision edge is
never an edge of its own message passing (amendment 9). Nodes are those known at that moment; an index is a row
number within its snapshot, and the id maps ride in it.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.aggregates import D_ONLINE_PEOPLE, D_ONLINE_PLACE, ONLINE_PAIR, ONLINE_TIE
from recsys.constants import D_EDGE_USER_PLACE, D_EDGE_USER_USER, MAX_NEIGHBORHOODS_PER_USER
from recsys.errors import DataError
from recsys.taxonomy import Widths

with warnings.catch_warnings():
    # PyG 2.8 compiles a helper with torch.jit while it is imported, which torch 2.13 deprecates
    warnings.simplefilter("ignore", DeprecationWarning)
    from torch_geometric.data import HeteroData as HeteroData

Array = npt.NDArray[np.generic]
INTERACTS: Final = ("user", "interacts", "place")
REV_INTERACTS: Final = ("place", "rev_interacts", "user")
SOCIAL: Final = ("user", "social", "user")


@dataclass(frozen=True)
class PlaceLabels:
    """Interactions after the moment: graph indices (L,) int64, rating (L,) float32 in [1, 5], slot (L,) int64."""

    user: Tensor
    place: Tensor
    rating: Tensor
    slot: Tensor


@dataclass(frozen=True)
class FriendLabels:
    """Labelled pairs after the moment: graph indices (L,) int64, compat and attend (L,) float32, slot (L,) int64."""

    user_u: Tensor
    user_v: Tensor
    compat: Tensor
    attend: Tensor
    slot: Tensor


@dataclass(frozen=True)
class NewTies:
    """Who became friends after the moment, both known at it: graph indices (T,) int64 each."""

    user_u: Tensor
    user_v: Tensor


@dataclass(frozen=True)
class Companions:
    """Who attended the same place on the same day after the moment: (L,) int64 each."""

    user_u: Tensor
    user_v: Tensor
    place: Tensor
    slot: Tensor


@dataclass(frozen=True)
class Past:
    """Distinct pairs of a user and a place with any event before the moment, however long ago: E of them.

    The graph forgets a pair that was silent for PAIR_TTL, as the online store does; a person's taste outlasts that.

    Attributes:
        keys: (E,) int64, user * M + place in graph indices, sorted.
        count: (E,) float32 events. age_days: (E,) float32 days since the last.
    """

    keys: Tensor
    count: Tensor
    age_days: Tensor


@dataclass(frozen=True)
class Visits:
    """Who attended which place on which days before the moment, however long ago.

    Attributes:
        user, place: (V,) int64 graph indices. day: (V,) int64 days since 1970.
    """

    user: Tensor
    place: Tensor
    day: Tensor


@dataclass(frozen=True)
class Snapshot:
    """The world as of a moment, and what happened in [as_of, until).

    Attributes:
        widths: how many categories, tags and vibes the data set has.
        data: graph and node features as of `as_of`; built by `build_graph`.
        user_online: (N, D) ONLINE_USER.
        place_online: (M, D) PLACE_ACTIVITY and the known flag.
        pair_keys: (E,) int64, user * M + place, sorted; the distinct pairs of the graph.
        pair_online: (E, 15) ONLINE_PAIR in that order.
        tie_keys: (T,) int64, u * N + v with u < v, sorted.
        tie_online: (T, 4) ONLINE_TIE in that order.
        past: all pairs that were before the moment. visits: all attended ones, by day.
    """

    as_of: datetime
    until: datetime
    widths: Widths
    data: HeteroData
    user_online: Tensor
    place_online: Tensor
    pair_keys: Tensor
    pair_online: Tensor
    tie_keys: Tensor
    tie_online: Tensor
    past: Past
    visits: Visits
    labels: PlaceLabels
    friends: FriendLabels
    new_ties: NewTies
    companions: Companions

    def place_features(self, user: Tensor, place: Tensor) -> Tensor:
        """(B,) and (B,) indices → (B, D) ONLINE_PLACE as ranking reads it online."""
        key = user * len(self.place_online) + place
        pairs = _look_up(self.pair_keys, self.pair_online, key, len(ONLINE_PAIR))
        out = torch.cat([self.place_online[place], pairs], dim=1)
        assert out.shape[1] == D_ONLINE_PLACE
        return out

    def people_features(self, user: Tensor, peer: Tensor) -> Tensor:
        """(B,) and (B,) indices → (B, D) ONLINE_PEOPLE as ranking reads it online."""
        key = torch.minimum(user, peer) * len(self.user_online) + torch.maximum(user, peer)
        ties = _look_up(self.tie_keys, self.tie_online, key, len(ONLINE_TIE))
        out = torch.cat([ties, self.user_online[peer]], dim=1)
        assert out.shape[1] == D_ONLINE_PEOPLE
        return out


def _look_up(keys: Tensor, values: Tensor, wanted: Tensor, width: int) -> Tensor:
    """Rows of `values` whose sorted key is wanted; zeros where it is not there."""
    if len(keys) == 0:
        return torch.zeros(len(wanted), width)
    at = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
    return torch.where((keys[at] == wanted)[:, None], values[at], torch.zeros(()))


@dataclass(frozen=True)
class Nodes:
    """Node features in id order; see `recsys.taxonomy.Widths` for the blocks.

    Attributes:
        ids: (N,) int64, ascending.
        blocks: the blocks of `x` in the order of the layout, each (N, width).
        areas: users only: (N, 5) neighborhoods behind the `area_freqs` block, -1 where there are fewer.
    """

    ids: npt.NDArray[np.int64]
    blocks: Mapping[str, Array]
    areas: npt.NDArray[np.int64] | None = None

    def x(self, layout: Mapping[str, tuple[int, int]], kind: str) -> Tensor:
        """(N, D) float32 by the layout.

        Raises:
            DataError: a block is missing, of another width, or holds NaN or infinity.
        """
        columns = []
        for name, (start, stop) in layout.items():
            block = np.asarray(self.blocks[name], dtype=np.float32).reshape(len(self.ids), -1)
            if block.shape[1] != stop - start:
                raise DataError(f"{kind} block {name} must have {stop - start} columns (got {block.shape[1]})")
            bad = ~np.isfinite(block).all(axis=1)
            if bad.any():
                raise DataError(f"{kind} {self.ids[bad][0]}: {name} is not finite ({int(bad.sum())} rows)")
            columns.append(block)
        return torch.from_numpy(np.concatenate(columns, axis=1))


@dataclass(frozen=True)
class Edges:
    """Edges by row number of their ends.

    Attributes:
        source, target: (E,) int64.
        attr: (E, 12) or (E, 3) float32.
        extra: further tensors beside `edge_attr`, by name, each (E,).
    """

    source: npt.NDArray[np.int64]
    target: npt.NDArray[np.int64]
    attr: npt.NDArray[np.float32]
    extra: Mapping[str, Array]


def build_graph(users: Nodes, places: Nodes, pairs: Edges, ties: Edges, widths: Widths) -> HeteroData:
    """The seed's graph (section 3): widths by the taxonomy, repeats already one edge a pair, ties in both directions.

    Args:
        users, places: node features, ids ascending.
        pairs: distinct (user, place) edges with `count` and `age_days` beside their twelve attributes.
        ties: user pairs, each once.
        widths: how many categories, tags and vibes there are.

    Returns:
        HeteroData with x (N, d_user) and (M, d_place) of the widths, edge_attr 12 and 3, and the id maps `user_id`,
        `place_id`.
    """
    data = HeteroData()
    data["user"].x = users.x(widths.user_x, "user")
    data["user"].user_id = torch.from_numpy(users.ids)
    areas = users.areas if users.areas is not None else np.full((len(users.ids), MAX_NEIGHBORHOODS_PER_USER), -1)
    data["user"].area_ids = torch.from_numpy(areas)
    data["place"].x = places.x(widths.place_x, "place")
    data["place"].place_id = torch.from_numpy(places.ids)
    index = torch.from_numpy(np.stack([pairs.source, pairs.target]))
    attr = torch.from_numpy(pairs.attr)
    for relation, edge_index in ((INTERACTS, index), (REV_INTERACTS, index.flip(0))):
        data[relation].edge_index = edge_index
        data[relation].edge_attr = attr
        for name, values in pairs.extra.items():
            data[relation][name] = torch.from_numpy(np.asarray(values, dtype=np.float32))
    there = np.stack([ties.source, ties.target])
    data[SOCIAL].edge_index = torch.from_numpy(np.concatenate([there, there[::-1]], axis=1))
    data[SOCIAL].edge_attr = torch.from_numpy(np.concatenate([ties.attr, ties.attr]))
    assert attr.shape[1] == D_EDGE_USER_PLACE
    assert ties.attr.shape[1] == D_EDGE_USER_USER
    return data
