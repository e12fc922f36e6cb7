"""Candidate lists for the place head: found as a request finds them, whatever the labels say.

A list that had its positives put in by force would teach the head that what no source names is good. So a positive
counts only where a source has named it, in training as in serving.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.aggregates import D_ONLINE_PLACE
from recsys.constants import SLOT_NOT_SAID
from recsys.models.backbone import Embeddings
from recsys.sources import ASKED, NEAR, Said, meets
from recsys.training.inputs import Prepared

_ASKED = slice(D_ONLINE_PLACE + ASKED.start, D_ONLINE_PLACE + ASKED.stop)  # among the head's inputs
_BLOCK = 128  # users at once
_ALWAYS = 16  # of a list's positives, so many are kept when it is thinned


@dataclass(frozen=True)
class CityLists:
    """Candidates of B users in one city.

    Attributes:
        city: its number. user: (B,). position: (B, C) among the city's places, in no order. marks: (B, C) uint8, a bit
            a source of PLACE_SOURCES.
        said: what the sources say.
    """

    city: int
    user: Tensor
    position: Tensor
    marks: npt.NDArray[np.uint8]
    said: Said

    def inputs(self, prepared: Prepared) -> tuple[Tensor, Tensor]:
        """(B, C) places, and (B, C, D_PLACE_INPUT): what the head reads of them beside the vectors."""
        place = prepared.places.of(self.city)[self.position]
        repeated = self.user[:, None].expand_as(place)
        online = prepared.snapshot.place_features(repeated.reshape(-1), place.reshape(-1)).reshape(*place.shape, -1)
        fits = prepared.traits.fits(prepared.stated(self.user), self.city, place.numpy())
        signals = prepared.sources.signals(self.said, self.position.numpy())
        return place, torch.cat([online, torch.from_numpy(fits), torch.from_numpy(signals)], dim=2)

    def visited(self) -> Tensor:
        """(B, C) bool, where the user was before."""
        own = np.take_along_axis(self.said.named["own"], self.position.numpy(), axis=1)
        return torch.from_numpy(own > 0)


@torch.no_grad()
def city_lists(
    prepared: Prepared, embeddings: Embeddings, users: Tensor, city: int, size: int, *, fresh: bool = False
) -> CityLists:
    """Candidates of (B,) users in a city, `size` each or as many as the city has places; `fresh`: visited ones last."""
    said = prepared.sources.ask(users.numpy(), city)
    members = prepared.places.of(city)
    cosine = embeddings.user[users] @ embeddings.place[members].t()
    near = cosine.topk(min(NEAR, len(members)), dim=1).indices.numpy()
    position, marks = prepared.sources.candidates(said, size, near, without=said.named["own"] > 0 if fresh else None)
    return CityLists(city, users, torch.from_numpy(position), marks, said)


@dataclass(frozen=True)
class Lists:
    """The lists of a window's users, to learn from or to measure on.

    Attributes:
        prepared, embeddings: the window, and vectors as of its beginning.
        user, city: (L,).
        place: (L, C); lists of smaller cities end in repetitions that `there` does not mark.
        inputs: (L, C, D_PLACE_INPUT) float16.
        there: (L, C) bool, candidates; of a fresh list where the user never was.
        liked: (L, C) bool, those of them that are a positive of the window, in any context.
        targets: (L,) positives in the city that such a list may hold, found or not, of the span it was made for.
    """

    prepared: Prepared
    embeddings: Embeddings
    user: Tensor
    city: Tensor
    place: Tensor
    inputs: Tensor
    there: Tensor
    liked: Tensor
    targets: Tensor

    def learning(self, prepared: Prepared) -> "Lists":
        """The same lists, to learn from the positives of another span of time after the same moment."""
        liked = self.there & prepared.is_positive(self.user[:, None], self.place)
        return replace(self, prepared=prepared, liked=liked)

    def anchors(self, generator: torch.Generator) -> Tensor:
        """(L,) for each list's user a positive by chance: its number among the labels; for a user of none, any."""
        drawn = torch.randperm(len(self.prepared.user), generator=generator)
        users, first = np.unique(self.prepared.user[drawn].numpy(), return_index=True)
        at = np.minimum(np.searchsorted(users, self.user.numpy()), len(users) - 1)
        return drawn[torch.from_numpy(first[at])]


@torch.no_grad()
def window_lists(
    prepared: Prepared, embeddings: Embeddings, *, fresh: bool, size: int, most: int, generator: torch.Generator
) -> Lists | None:
    """Lists of the users with a positive in their home city, at most `most` of them by chance; None for nobody.

    Args:
        prepared: the window.
        embeddings: as of its beginning.
        fresh: of places where the user never was, as a request that excludes visited ones is answered.
        size: candidates of a list.
        most: lists.
        generator: source of randomness.
    """
    n_places = len(prepared.places.city)
    user, place = prepared.positive_keys // n_places, prepared.positive_keys % n_places
    counts = prepared.users.city[user] == prepared.places.city[place]
    if fresh:
        counts &= ~prepared.was_there(user, place)
    targets = torch.bincount(user[counts], minlength=len(prepared.users.city))
    chosen = targets.nonzero()[:, 0]
    chosen = chosen[torch.randperm(len(chosen), generator=generator)[:most]].sort().values
    if len(chosen) == 0:
        return None
    city = prepared.users.city[chosen]
    chosen = chosen[torch.argsort(city, stable=True)]
    parts = []
    for c in torch.unique(city).tolist():
        for block in torch.split(chosen[prepared.users.city[chosen] == c], _BLOCK):
            found = city_lists(prepared, embeddings, block, c, size, fresh=fresh)
            place, inputs = found.inputs(prepared)
            there = ~found.visited() if fresh else torch.ones_like(place, dtype=torch.bool)
            columns = (place, inputs.half(), there, there & prepared.is_positive(block[:, None], place))
            parts.append([_padded(column, size) for column in columns])
    place, inputs, there, liked = (torch.cat(column) for column in zip(*parts, strict=True))
    return Lists(
        prepared, embeddings, chosen, prepared.users.city[chosen], place, inputs, there, liked, targets[chosen]
    )


def _padded(column: Tensor, size: int) -> Tensor:
    missing = size - column.shape[1]
    return column if missing <= 0 else torch.cat([column, column.new_zeros(len(column), missing, *column.shape[2:])], 1)


@dataclass(frozen=True)
class ListBatch:
    """Lists to learn from.

    Attributes:
        user: (B,). place: (B, L). inputs: (B, L, D_PLACE_INPUT).
        positive: (B, L) bool. log_weight: (B, L): how many candidates each stands for; -inf: none.
        city, slot: (B,). categories: (B, n_categories).
    """

    user: Tensor
    place: Tensor
    inputs: Tensor
    positive: Tensor
    log_weight: Tensor
    city: Tensor
    slot: Tensor
    categories: Tensor


@torch.no_grad()
def draw_batch(
    lists: Lists,
    chosen: Tensor,
    anchor: Tensor,
    *,
    length: int,
    slot_dropout: float,
    category_rate: float,
    generator: torch.Generator,
) -> ListBatch:
    """Some lists, each in the context of one of the user's positives.

    A context that is said makes the positives of other contexts neither positive nor negative.

    Args:
        lists: of a window.
        chosen: (B,) which.
        anchor: (B,) a positive of each.
        length: of the candidates so many are kept: positives, and others by chance, which stand for all of them.
        slot_dropout: probability that the slot is not said.
        category_rate: probability that the anchor's categories are said.
        generator: source of randomness.
    """
    prepared, n = lists.prepared, len(chosen)
    said, named = (torch.rand(n, generator=generator) < rate for rate in (1 - slot_dropout, category_rate))
    slot = torch.where(said, prepared.slot[anchor], SLOT_NOT_SAID)
    categories = prepared.categories[prepared.place[anchor]] * named[:, None]
    user, place = lists.user[chosen], lists.place[chosen]
    allowed, liked = lists.there[chosen], lists.liked[chosen]
    wanted = liked & prepared.is_positive(user[:, None], place, slot[:, None])
    wanted &= ~named[:, None] | (prepared.categories[place] @ categories[:, :, None] > 0)[..., 0]
    free = allowed & ~liked
    key = torch.rand(place.shape, generator=generator) + 2.0 * free + 4.0 * wanted
    at = key.topk(min(length, place.shape[1]), dim=1).indices
    positive, negative = wanted.gather(1, at), free.gather(1, at)
    positive &= positive.cumsum(dim=1) <= _ALWAYS
    each = (free.sum(dim=1) / negative.sum(dim=1).clamp(min=1)).clamp(min=1).log()
    weight = torch.where(negative, each[:, None], torch.where(positive, 0.0, -torch.inf))
    keep = positive.any(dim=1)
    inputs, shown = lists.inputs[chosen[:, None], at].float(), place.gather(1, at)
    met = meets(slot, categories, prepared.slots[shown], prepared.categories[shown])
    inputs[..., _ASKED] = torch.stack(met, dim=2).float()
    return ListBatch(
        user[keep], shown[keep], inputs[keep], positive[keep], weight[keep],
        lists.city[chosen][keep], slot[keep], categories[keep],
    )  # fmt: skip
