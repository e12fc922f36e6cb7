"""A snapshot → what the model reads: patterns built, edges' features stacked, ids checked, catalogues by city."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from recsys.constants import N_TIME_SLOTS, POSITIVE_RATING, SLOT_NOT_SAID
from recsys.errors import DataError
from recsys.graph import INTERACTS, SOCIAL, Snapshot
from recsys.models.backbone import GraphInputs
from recsys.models.config import ModelConfig
from recsys.models.encoders import block, check_ids
from recsys.models.sparse import Relation
from recsys.sources import Memory, Outings, PeopleSources, PlaceSources, Stated, Traits

RECENCY_DAYS = 14.0  # an edge's recency feature is exp(-age / this)


def size_config(snapshots: Sequence[Snapshot], base: ModelConfig) -> ModelConfig:
    """The config with its geography and taxonomy sized from the data (amendment 8)."""
    cities, neighborhoods, widths = 0, 0, snapshots[0].widths
    for snapshot in snapshots:
        user_x, place_x = snapshot.data["user"].x, snapshot.data["place"].x
        columns = (
            (user_x, snapshot.widths.user_x, "home_city_id", "home_neighborhood_id"),
            (place_x, snapshot.widths.place_x, "city_id", "neighborhood_id"),
        )
        for x, layout, city, neighborhood in columns:
            if len(x) == 0:
                continue
            cities = max(cities, int(block(x, layout, city).nan_to_num().max()) + 1)
            neighborhoods = max(neighborhoods, int(block(x, layout, neighborhood).nan_to_num().max()) + 1)
        areas = snapshot.data["user"].area_ids
        neighborhoods = max(neighborhoods, int(areas.max()) + 1 if areas.numel() else 0)
    return replace(
        base,
        n_cities=max(cities, 1),
        n_neighborhoods=max(neighborhoods, 1),
        n_categories=widths.categories,
        n_tags=widths.tags,
        n_vibes=widths.vibes,
    )


def graph_inputs(snapshot: Snapshot, config: ModelConfig) -> GraphInputs:
    """Check a snapshot's graph against the model's sizes and build its patterns.

    Raises:
        DataError: an id that the model does not know, an edge to nowhere, or a feature that is not finite.
    """
    data = snapshot.data
    user_x, place_x, areas = data["user"].x, data["place"].x, data["user"].area_ids
    check_ids(config, user_x, areas, place_x)
    _check_online(snapshot)
    pairs, ties = data[INTERACTS], data[SOCIAL]
    pair_features = stack_pairs(pairs.edge_attr, torch.as_tensor(pairs.count), torch.as_tensor(pairs.age_days))
    tie_features = ties.edge_attr.t().contiguous()
    for name, features in (("interacts", pair_features), ("social", tie_features)):
        if not bool(torch.isfinite(features).all()):
            row = int((~torch.isfinite(features)).any(dim=1).nonzero()[0, 0])
            raise DataError(f"edge feature {row} of {name} is not finite")
    return GraphInputs(
        user_x=user_x,
        area_ids=areas,
        place_x=place_x,
        pairs=Relation.from_edges(pairs.edge_index, len(user_x), len(place_x)),
        pair_features=pair_features,
        ties=Relation.from_edges(ties.edge_index, len(user_x), len(user_x)),
        tie_features=tie_features,
    )


def stack_pairs(attr: Tensor, count: Tensor, age_days: Tensor) -> Tensor:
    """(E, 12), (E,) and (E,) → (14, E) what the gates read of pairs."""
    more = torch.stack([(torch.log1p(count) / 4.0).clamp(max=1.0), torch.exp(-age_days / RECENCY_DAYS)])
    return torch.cat([attr.t(), more]).contiguous()


def _check_online(snapshot: Snapshot) -> None:
    for name in ("user_online", "place_online", "pair_online", "tie_online"):
        values = getattr(snapshot, name)
        if not bool(torch.isfinite(values).all()):
            raise DataError(f"{name} holds values that are not finite ({int((~torch.isfinite(values)).sum())} of them)")
    n_users, n_places = len(snapshot.user_online), len(snapshot.place_online)
    labels, friends, companions = snapshot.labels, snapshot.friends, snapshot.companions
    ends = {
        "labels.user": (labels.user, n_users),
        "labels.place": (labels.place, n_places),
        "friends.user_u": (friends.user_u, n_users),
        "friends.user_v": (friends.user_v, n_users),
        "companions.user_u": (companions.user_u, n_users),
        "companions.user_v": (companions.user_v, n_users),
        "companions.place": (companions.place, n_places),
    }
    for name, (index, size) in ends.items():
        if len(index) and not (int(index.min()) >= 0 and int(index.max()) < size):
            raise DataError(f"{name} must lie in [0, {size}) (got {int(index.min())} to {int(index.max())})")


@dataclass(frozen=True)
class CityCatalogue:
    """Nodes grouped by city.

    Attributes:
        city: (n,) int64, the city of each node.
        members: (n,) nodes sorted by city, then by index.
        starts: (C + 1,) where each city's members begin.
        position: (n,) where each node stands among its city's members.
    """

    city: Tensor
    members: Tensor
    starts: Tensor
    position: Tensor

    @classmethod
    def build(cls, city: Tensor, n_cities: int) -> "CityCatalogue":
        """Group (n,) city ids."""
        members = torch.argsort(city, stable=True)
        starts = torch.zeros(n_cities + 1, dtype=torch.int64)
        starts[1:] = torch.bincount(city, minlength=n_cities).cumsum(0)
        position = torch.empty_like(members)
        position[members] = torch.arange(len(city)) - starts[city[members]]
        return cls(city, members, starts, position)

    def of(self, city: int) -> Tensor:
        """The members of one city."""
        return self.members[self.starts[city] : self.starts[city + 1]]

    def sizes(self) -> Tensor:
        """(C,) members a city."""
        return self.starts.diff()


@dataclass(frozen=True)
class Prepared:
    """A snapshot ready for training or evaluation.

    Attributes:
        snapshot: where it comes from.
        graph: what the backbone reads.
        users, places: catalogues by home city and by city.
        categories: (M, 6) multi-hot of the places' categories.
        tags: (M, 100) multi-hot of the places' fine tags.
        user, place, slot: (P,) the positives: labels rated POSITIVE_RATING or more.
        positive_keys: sorted distinct user * M + place of the positives.
        slot_keys: the same, times the number of slots, plus the slot.
    """

    snapshot: Snapshot
    graph: GraphInputs
    users: CityCatalogue
    places: CityCatalogue
    categories: Tensor
    tags: Tensor
    user: Tensor
    place: Tensor
    slot: Tensor
    positive_keys: Tensor
    slot_keys: Tensor

    def to(self, device: torch.device | str) -> "Prepared":
        """The same with the graph on another device; labels, catalogues and sources stay."""
        return replace(self, graph=self.graph.to(device))

    def forget(self) -> None:
        """Let go of memory and sources, which are large; they are made again where they are asked for."""
        for name in ("memory", "sources", "people_sources"):
            vars(self).pop(name, None)

    def is_positive(self, user: Tensor, place: Tensor, slot: Tensor | None = None) -> Tensor:
        """Bool, in the shape of the broadcast inputs: a positive of the window, in a slot if one is said."""
        key = user * len(self.places.city) + place
        anywhere = _among(self.positive_keys, key)
        if slot is None:
            return anywhere
        then = _among(self.slot_keys, key * (N_TIME_SLOTS + 1) + slot)
        return torch.where(slot == SLOT_NOT_SAID, anywhere, then)

    def followed_by(self, later: Sequence["Prepared"]) -> "Prepared":
        """The same moment, with the positives of later windows too, where who and what was known at it already."""
        n_places, keys = len(self.places.city), [self.slot_keys]
        for window in later:
            user, was = _known(self.snapshot.data["user"].user_id, window.snapshot.data["user"].user_id[window.user])
            place, opened = _known(
                self.snapshot.data["place"].place_id, window.snapshot.data["place"].place_id[window.place]
            )
            keys.append(_slot_key(user, place, window.slot, n_places)[was & opened])
        return self._labelled(torch.unique(torch.cat(keys)))

    def only(self, kept: Tensor) -> "Prepared":
        """The same moment with those of the (P,) positives alone; its memory and sources are this one's."""
        out = self._labelled(self.slot_keys[kept])
        vars(out).update(memory=self.memory, sources=self.sources)
        return out

    def _labelled(self, slot_keys: Tensor) -> "Prepared":
        user, place, slot, pairs = _positives(slot_keys, len(self.places.city))
        return replace(self, user=user, place=place, slot=slot, positive_keys=pairs, slot_keys=slot_keys)

    def was_there(self, user: Tensor, place: Tensor) -> Tensor:
        """Bool, in the shape of the inputs: the user had been at the place before the moment."""
        return _among(self.snapshot.past.keys, user * len(self.places.city) + place)

    def people_inputs(self, user: Tensor, peer: Tensor) -> Tensor:
        """(L,) and (L,) indices → (L, D_PEOPLE_INPUT), what the friend head reads of pairs beside the vectors."""
        signals = torch.from_numpy(self.people_sources.pairs(user.numpy(), peer.numpy()))
        return torch.cat([self.snapshot.people_features(user, peer), signals], dim=1)

    @cached_property
    def memory(self) -> Memory:
        """Who had been where, and who knew whom, as of the snapshot's moment."""
        past, ties, n_places = self.snapshot.past, self.snapshot.data[SOCIAL], len(self.places.city)
        return Memory.of(
            ((past.keys // n_places).numpy(), (past.keys % n_places).numpy()),
            past.count.numpy(),
            past.age_days.numpy(),
            (ties.edge_index[0].numpy(), ties.edge_index[1].numpy()),
            self.places.city.numpy(),
            self.traits,
            len(self.users.city),
        )

    @cached_property
    def traits(self) -> Traits:
        """What the places are."""
        x, layout = self.graph.place_x.cpu(), self.snapshot.widths.place_x
        categories, tags, *ones = (
            block(x, layout, name).numpy()
            for name in ("category_one_hot", "fine_tag_vector", "neighborhood_id", "price_band", "typical_time_slot")
        )
        return Traits(categories.copy(), tags.copy(), *(values[:, 0].astype(np.int64) for values in ones))

    @cached_property
    def slots(self) -> Tensor:
        """(M,) the places' typical slots."""
        return torch.from_numpy(self.traits.slot)

    def stated(self, users: Tensor) -> Stated:
        """The profiles of (B,) users."""
        x, layout = self.snapshot.data["user"].x[users], self.snapshot.widths.user_x
        categories, tags, shares = (block(x, layout, name).numpy() for name in ("cat_pref", "fine_pref", "area_freqs"))
        areas = self.snapshot.data["user"].area_ids[users].numpy()
        return Stated(categories, tags, self.users.city[users].numpy(), areas, shares)

    @cached_property
    def sources(self) -> PlaceSources:
        """Where candidate places come from, fitted on the first use."""
        return PlaceSources(self.memory)

    @cached_property
    def people_sources(self) -> PeopleSources:
        """Where candidate people come from."""
        visits, home = self.snapshot.visits, self.users.city.numpy()
        shape = len(home), len(self.places.city)
        outings = Outings.of(visits.user.numpy(), visits.place.numpy(), visits.day.numpy(), shape)
        return PeopleSources(self.memory.friends, outings, home)


def _among(keys: Tensor, wanted: Tensor) -> Tensor:
    if len(keys) == 0:
        return torch.zeros_like(wanted, dtype=torch.bool)
    at = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
    return keys[at] == wanted


def _known(ids: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Row numbers among ascending ids, and which are among them at all."""
    at = torch.searchsorted(ids, wanted).clamp_(max=max(len(ids) - 1, 0))
    return at, _among(ids, wanted)


def _slot_key(user: Tensor, place: Tensor, slot: Tensor, n_places: int) -> Tensor:
    return (user * n_places + place) * (N_TIME_SLOTS + 1) + slot


def _positives(slot_keys: Tensor, n_places: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sorted distinct keys → user, place and slot of each, and the sorted distinct keys of user and place."""
    pair = slot_keys // (N_TIME_SLOTS + 1)
    return pair // n_places, pair % n_places, slot_keys % (N_TIME_SLOTS + 1), torch.unique(pair)


def prepare(snapshot: Snapshot, config: ModelConfig) -> Prepared:
    """Build everything that does not change between steps.

    Raises:
        DataError: as `graph_inputs`.
    """
    graph = graph_inputs(snapshot, config)
    labels = snapshot.labels
    positive = labels.rating >= POSITIVE_RATING
    # one a (user, place, slot): a daily habit is one thing to learn, as it is one target of the evaluation
    key = torch.unique(_slot_key(labels.user, labels.place, labels.slot, len(graph.place_x))[positive])
    user, place, slot, pairs = _positives(key, len(graph.place_x))
    home = block(graph.user_x, config.widths.user_x, "home_city_id").long()[:, 0]
    place_city = block(graph.place_x, config.widths.place_x, "city_id").long()[:, 0]
    return Prepared(
        snapshot=snapshot,
        graph=graph,
        users=CityCatalogue.build(home, config.n_cities),
        places=CityCatalogue.build(place_city, config.n_cities),
        categories=(block(graph.place_x, config.widths.place_x, "category_one_hot") > 0).float(),
        tags=(block(graph.place_x, config.widths.place_x, "fine_tag_vector") > 0).float(),
        user=user,
        place=place,
        slot=slot,
        positive_keys=pairs,
        slot_keys=key,
    )
