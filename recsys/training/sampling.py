"""Batched draws of positives, negatives and contexts (amendment 14); every draw from one generator a step.

The generator is keyed by (seed, epoch, step), so a resumed run draws what the undisturbed one would have drawn.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.aggregates import PLACE_ACTIVITY
from recsys.constants import SLOT_NOT_SAID
from recsys.models.backbone import Embeddings
from recsys.training.inputs import CityCatalogue, Prepared

_POPULAR = PLACE_ACTIVITY.index("popularity_28d")


def step_seed(seed: int, epoch: int, step: int) -> int:
    """One well-mixed 63-bit number a step."""
    return int(np.random.SeedSequence([seed, epoch, step]).generate_state(1, np.uint64)[0] >> 1)


def step_generator(seed: int, epoch: int, step: int) -> torch.Generator:
    """The generator of one step."""
    return torch.Generator().manual_seed(step_seed(seed, epoch, step))


def uniform_in_city(catalogue: CityCatalogue, city: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """(B,) cities → (B, k) members of each, uniformly with replacement. Every city must have members."""
    size = catalogue.sizes()[city][:, None]
    draw = (torch.rand(len(city), k, generator=generator, dtype=torch.float64) * size).long()
    return catalogue.members[catalogue.starts[city][:, None] + torch.minimum(draw, size - 1)]


def weighted_in_city(
    catalogue: CityCatalogue, cumulative: Tensor, city: Tensor, k: int, generator: torch.Generator
) -> Tensor:
    """(B,) cities → (B, k) members, by weight with replacement.

    Args:
        catalogue: who is where.
        cumulative: (n + 1,) float64, `cumulative_weights` of the same catalogue.
        city: (B,).
        k: draws a row.
        generator: source of randomness.
    """
    first, last = catalogue.starts[city], catalogue.starts[city + 1]
    low, high = cumulative[first][:, None], cumulative[last][:, None]
    at = low + torch.rand(len(city), k, generator=generator, dtype=torch.float64) * (high - low)
    found = torch.searchsorted(cumulative, at, right=True) - 1
    return catalogue.members[torch.minimum(torch.maximum(found, first[:, None]), last[:, None] - 1)]


def cumulative_weights(catalogue: CityCatalogue, weight: Tensor) -> Tensor:
    """(n,) positive weights by node → (n + 1,) cumulative sum in the catalogue's order, float64."""
    out = torch.zeros(len(weight) + 1, dtype=torch.float64)
    out[1:] = weight.double()[catalogue.members].cumsum(0)
    return out


def popularity_weights(prepared: Prepared) -> Tensor:
    """(M,) float32: views a day over 28 days, smoothed so that every place can be drawn."""
    rate = torch.expm1(prepared.snapshot.place_online[:, _POPULAR] * 5.0)  # undo ln(1 + rate) / 5
    return rate + 0.1 * rate.mean() + 1e-3


@torch.no_grad()
def hard_in_city(
    query: Tensor,
    items: Tensor,
    catalogue: CityCatalogue,
    city: Tensor,
    k: int,
    *,
    depth: int,
    max_candidates: int,
    generator: torch.Generator,
) -> Tensor:
    """Uniform draws from what retrieval would hand to the head: each query's best `depth` members of its city.

    Uniform within the list on purpose: a head trained against negatives drawn in proportion to q learns log(p / q),
    so draws by retrieval score would teach it to undo retrieval.

    Args:
        query: (B, D) unit vectors. items: (n, D) unit vectors of all nodes.
        catalogue: nodes by city. city: (B,).
        k: draws a query, with replacement.
        depth: length of the list.
        max_candidates: of a larger city, only this many uniform draws are searched.
        generator: source of randomness.

    Returns:
        (B, k) nodes.
    """
    out = torch.empty(len(city), k, dtype=torch.int64)
    for c in torch.unique(city).tolist():
        here = (city == c).nonzero()[:, 0]
        members = catalogue.of(c)
        if len(members) > max_candidates:
            members = members[torch.randperm(len(members), generator=generator)[:max_candidates]]
        wide = min(depth, len(members))
        best = (query[here] @ items[members].t()).topk(wide, dim=1, sorted=False).indices
        drawn = torch.randint(wide, (len(here), k), generator=generator)
        out[here] = members[best.gather(1, drawn)]
    return out


@dataclass(frozen=True)
class NegativeMix:
    """How many negatives of each kind a positive gets.

    Attributes:
        uniform: uniformly from the city.
        popular: from the city by views.
        hard: uniformly from the best `depth` by retrieval score, as many as serving hands to the head.
        max_candidates: a city with more places than this is sampled down to it for the hard ones.
    """

    uniform: int = 1
    popular: int = 1
    hard: int = 8
    depth: int = 200
    max_candidates: int = 4096


@dataclass(frozen=True)
class PlaceBatch:
    """Positives with their negatives and one context a positive, the same for its negatives.

    Attributes:
        user, place: (B,). negatives: (B, K). weight: (B, K), 0 where a negative is a positive of that user.
        city: (B,) city of the place. slot: (B,) or SLOT_NOT_SAID. categories: (B, 6), zeros when none are said.
    """

    user: Tensor
    place: Tensor
    negatives: Tensor
    weight: Tensor
    city: Tensor
    slot: Tensor
    categories: Tensor


def draw_positives(prepared: Prepared, size: int, generator: torch.Generator) -> Tensor:
    """Numbers of up to `size` distinct positives."""
    return torch.randperm(len(prepared.user), generator=generator)[:size]


@torch.no_grad()
def draw_places(
    prepared: Prepared,
    chosen: Tensor,
    embeddings: Embeddings,
    popular: Tensor,
    mix: NegativeMix,
    *,
    slot_dropout: float,
    category_rate: float,
    generator: torch.Generator,
) -> PlaceBatch:
    """Negatives and contexts for chosen positives.

    Args:
        prepared: the snapshot.
        chosen: (B,) numbers of positives.
        embeddings: current vectors, for the hard negatives.
        popular: `cumulative_weights` of popularity.
        mix: how many of each kind.
        slot_dropout: probability that the slot is not said.
        category_rate: probability that the positive's categories are said.
        generator: source of randomness.
    """
    user, place = prepared.user[chosen], prepared.place[chosen]
    city = prepared.places.city[place]
    drawn = [
        uniform_in_city(prepared.places, city, mix.uniform, generator),
        weighted_in_city(prepared.places, popular, city, mix.popular, generator),
        hard_in_city(
            embeddings.user[user], embeddings.place, prepared.places, city, mix.hard,
            depth=mix.depth, max_candidates=mix.max_candidates, generator=generator,
        ),
    ]  # fmt: skip
    negatives = torch.cat(drawn, dim=1)
    said = torch.rand(len(user), generator=generator) >= slot_dropout
    named = torch.rand(len(user), 1, generator=generator) < category_rate
    return PlaceBatch(
        user=user,
        place=place,
        negatives=negatives,
        weight=(~prepared.is_positive(user[:, None], negatives)).float(),
        city=city,
        slot=torch.where(said, prepared.slot[chosen], torch.full_like(city, SLOT_NOT_SAID)),
        categories=prepared.categories[place] * named,
    )


@dataclass(frozen=True)
class FriendBatch:
    """Pairs with a context; `place` is -1 where none is said.

    Attributes:
        user, peer: (B,). compat, attend: (B,) labels. slot: (B,). place: (B,). tags: (B, 100).
    """

    user: Tensor
    peer: Tensor
    compat: Tensor
    attend: Tensor
    slot: Tensor
    place: Tensor
    tags: Tensor


def _context(
    prepared: Prepared, slot: Tensor, place: Tensor, dropout: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Drop slot, place and tags independently; tags are those of the place, and mean something without naming it."""
    gone = torch.rand(3, len(slot), generator=generator) < dropout
    tags = prepared.tags[place.clamp(min=0)] * (~gone[1] & (place >= 0)).float()[:, None]
    return torch.where(gone[0], SLOT_NOT_SAID, slot), torch.where(gone[2], -1, place), tags


def draw_friends(prepared: Prepared, size: int, dropout: float, generator: torch.Generator) -> FriendBatch:
    """Labelled pairs in a random direction, with a random place of the peer's city as context.

    A label says nothing about a place, so a random one teaches the head that the label does not depend on it; what
    does depend on it comes from `draw_companions`.
    """
    friends = prepared.snapshot.friends
    chosen = torch.randperm(len(friends.user_u), generator=generator)[:size]
    turned = torch.rand(len(chosen), generator=generator) < 0.5
    u, v = friends.user_u[chosen], friends.user_v[chosen]
    user, peer = torch.where(turned, v, u), torch.where(turned, u, v)
    city = prepared.users.city[peer]
    place = torch.full_like(user, -1)
    there = prepared.places.sizes()[city] > 0
    place[there] = uniform_in_city(prepared.places, city[there], 1, generator)[:, 0]
    slot, place, tags = _context(prepared, friends.slot[chosen], place, dropout, generator)
    return FriendBatch(user, peer, friends.compat[chosen], friends.attend[chosen], slot, place, tags)


def draw_companions(
    prepared: Prepared, size: int, dropout: float, generator: torch.Generator
) -> tuple[FriendBatch, Tensor]:
    """Pairs who attended together, with that place as context, and (B,) another person of the peer's city each."""
    companions = prepared.snapshot.companions
    chosen = torch.randperm(len(companions.user_u), generator=generator)[:size]
    turned = torch.rand(len(chosen), generator=generator) < 0.5
    u, v = companions.user_u[chosen], companions.user_v[chosen]
    user, peer = torch.where(turned, v, u), torch.where(turned, u, v)
    other = uniform_in_city(prepared.users, prepared.users.city[peer], 1, generator)[:, 0]
    slot, place, tags = _context(prepared, companions.slot[chosen], companions.place[chosen], dropout, generator)
    ones = torch.ones(len(chosen))
    return FriendBatch(user, peer, ones, ones, slot, place, tags), other
