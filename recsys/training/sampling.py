"""Batched draws of positives, negatives and contexts (amendment 14); every draw from one generator a step.

The generator is keyed by (seed, epoch, step), so a resumed run draws what the undisturbed one would have drawn.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.constants import SLOT_NOT_SAID
from recsys.training.inputs import CityCatalogue, Prepared


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


def draw_positives(prepared: Prepared, size: int, generator: torch.Generator) -> Tensor:
    """Numbers of up to `size` distinct positives."""
    return torch.randperm(len(prepared.user), generator=generator)[:size]


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
