"""How well places fit what somebody says of themselves and what a request asks for, whatever they did.

A profile says it as of a moment: in training as of the snapshot's, in serving as it is online. A newcomer has nothing
else, and what someone likes and has never tried no visit tells.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recsys.constants import N_TIME_SLOTS, SLOT_NOT_SAID
from recsys.sources.rows import Floats, Ints

_SLOTS: Final = tuple(f"slot_{i}" for i in range(N_TIME_SLOTS))
# Of a pair: cosine of tags, weight of the place's categories, share of one's outings in its area. Of a place: its price
# band, its typical slot as one of N_TIME_SLOTS. Of a place and a request: whether it is what was asked for.
PLACE_FITS: Final = ("likes_tags", "likes_categories", "area_share", "price_band", *_SLOTS, "wanted", "slot_fits")
ASKED: Final = slice(len(PLACE_FITS) - 2, len(PLACE_FITS))  # those that depend on the request


@dataclass(frozen=True)
class Stated:
    """The profiles of B users.

    Attributes:
        categories: (B, K) and tags: (B, T), weights. city: (B,) home.
        areas: (B, A) neighbourhoods at home, -1 for none, and shares: (B, A) of one's outings in each.
    """

    categories: Floats
    tags: Floats
    city: Ints
    areas: Ints
    shares: Floats


@dataclass(frozen=True)
class Traits:
    """What M places are.

    Attributes:
        categories: (M, K) and tags: (M, T) float32, weights. area, price, slot: (M,) neighbourhood within the city,
            band, typical slot.
    """

    categories: Floats
    tags: Floats
    area: Ints
    price: Ints
    slot: Ints

    def fits(
        self, stated: Stated, city: int, places: Ints, slot: Ints | None = None, wanted: Floats | None = None
    ) -> Floats:
        """What the head reads.

        Args:
            stated: of B users.
            city: of the places.
            places: (B, n) rows.
            slot: (B,) asked for, SLOT_NOT_SAID where none is; None: by nobody.
            wanted: (B, K) multi-hot, categories asked for; None: by nobody.

        Returns:
            (B, n, len(PLACE_FITS)) float32.
        """
        out: Floats = np.zeros((*places.shape, len(PLACE_FITS)), dtype=np.float32)
        out[..., 0] = (_unit(self.tags[places]) @ _unit(stated.tags)[:, :, None])[..., 0]
        out[..., 1] = (self.categories[places] @ stated.categories[:, :, None])[..., 0]
        same = (self.area[places][..., None] == stated.areas[:, None]) & (stated.city == city)[:, None, None]
        out[..., 2] = (same * stated.shares[:, None]).sum(axis=2)
        out[..., 3] = self.price[places]
        out[..., 4 : 4 + N_TIME_SLOTS] = self.slot[places][..., None] == np.arange(N_TIME_SLOTS)
        asked = (
            np.full(len(places), SLOT_NOT_SAID) if slot is None else slot,
            np.zeros_like(stated.categories) if wanted is None else wanted,
        )
        out[..., ASKED] = np.stack(meets(*asked, self.slot[places], self.categories[places]), axis=2)
        return out


def meets(slot: Any, wanted: Any, place_slot: Any, place_categories: Any) -> tuple[Any, Any]:
    """Whether places are of a category and of the slot that requests ask for; arrays, or tensors, as given.

    Args:
        slot: (B,). wanted: (B, K). place_slot: (B, n). place_categories: (B, n, K).

    Returns:
        Twice (B, n) bool, in the order of PLACE_FITS.
    """
    return (place_categories @ wanted[:, :, None])[..., 0] > 0, place_slot == slot[:, None]


def _unit(values: npt.NDArray[np.floating]) -> Floats:
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    out: Floats = (values / np.maximum(length, 1e-9)).astype(np.float32)
    return out
