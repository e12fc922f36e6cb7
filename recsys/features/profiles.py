"""What is read online of a user or a place as they describe themselves: the answers to one HMGET each."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from recsys.aggregates.finish import Floats
from recsys.errors import DataError
from recsys.features.format import floats, value
from recsys.online import PlaceRow, UserProfile
from recsys.taxonomy import Widths

USER_FIELDS: Final = (
    "name", "home_city_id", "home_neighborhood_id", "cat_pref", "fine_pref", "vibe_pref", "area_ids", "area_weights",
)  # fmt: skip
PLACE_FIELDS: Final = (
    "name", "city_id", "neighborhood_id", "category_one_hot", "fine_tag_vector", "price_band", "typical_time_slot",
)  # fmt: skip
_KEPT: Final = 1 << 14  # users, and places: about 30 MB each
Answer = Sequence[bytes | None] | None  # None: the node that knows did not answer


def user_profile(user_id: int, answer: Answer, widths: Widths) -> UserProfile | None:
    """How a user describes themselves; None where the store knows none. Not to be written to: others are given it too.

    Raises:
        DataError: a vector of another width.
    """
    return None if answer is None else _user(user_id, tuple(answer), widths)


def place_row(place_id: int, answer: Answer, widths: Widths) -> PlaceRow | None:
    """A place, likewise."""
    return None if answer is None else _place(place_id, tuple(answer), widths)


# What was read is always asked for anew; but the same bytes, which most are, need not be taken apart again.
@lru_cache(maxsize=_KEPT)
def _user(user_id: int, answer: tuple[bytes | None, ...], widths: Widths) -> UserProfile | None:
    name, city, area, categories, tags, vibes, areas, weights = answer
    if (likes := floats(categories, widths.categories)) is None:
        return None
    return UserProfile(
        user_id=user_id,
        name=str(value(name)),
        home_city_id=int(value(city)),
        home_neighborhood_id=int(value(area)),
        cat_pref=likes,
        fine_pref=_filled(tags, widths.tags),
        vibe_pref=_filled(vibes, widths.vibes),
        areas=dict(zip(value(areas) or [], value(weights) or [], strict=True)),
    )


@lru_cache(maxsize=_KEPT)
def _place(place_id: int, answer: tuple[bytes | None, ...], widths: Widths) -> PlaceRow | None:
    name, city, area, categories, tags, price, slot = answer
    if (kinds := floats(categories, widths.categories)) is None:
        return None
    return PlaceRow(
        place_id=place_id,
        name=str(value(name)),
        city_id=int(value(city)),
        neighborhood_id=int(value(area)),
        category_one_hot=kinds,
        fine_tag_vector=_filled(tags, widths.tags),
        price_band=int(value(price)),
        typical_time_slot=int(value(slot)),
    )


def _filled(reply: bytes | None, width: int) -> Floats:
    if (values := floats(reply, width)) is None:
        raise DataError(f"a feature list must have {width} values (got none)")
    return values
