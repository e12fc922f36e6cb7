"""Why: short sentences that are true in the data (seed, sections 6.5 and 8).

A neighborhood is a number within a city, so it is compared within the same city only, and named (amendment 20).
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from recsys.aggregates.finish import Floats
from recsys.online import PlaceRow, UserProfile
from recsys.recommend.engine import Engine, Gazetteer
from recsys.stages import stage
from recsys.taxonomy import OTHER, UNKNOWN

MOST: Final = 3
_OVERLAP: Final = 0.01  # product of two weights from which an overlap is worth a word
_CATEGORY: Final = 0.15  # share of someone's taste from which they enjoy a category
_AREA: Final = 0.15  # share of someone's outings from which they go there often (seed, section 8: "high")
_TAGS: Final = 2


def company(friends: int, engine: Engine) -> str | None:
    """What friends did, told only where at least `k_anonymity` of them did: of fewer one could guess who.

    Args:
        friends: how many had been there or looked at it, as of the version: an event may be either.
        engine: whether its data know friendships; else ties are people alike, and are not called friends.
    """
    if friends < engine.k_anonymity:
        return None
    who, verb = "your friends" if engine.friendships else "those close to you", "has" if friends == 1 else "have"
    return f"{friends} of {who} {verb} been there or looked at it."


@stage("explain")
def why_place(user: UserProfile, place: PlaceRow, names: Gazetteer, company: str | None = None) -> list[str]:
    """Up to three reasons why a place suits a user; never empty.

    Args:
        user, place: as read online.
        names: of the version.
        company: what friends did there, if that may be told.
    """
    reasons = []
    if tags := _overlap(user.fine_pref, place.fine_tag_vector, names.taxonomy.tags):
        reasons.append(f"Matches your interest in {' and '.join(tags)}.")
    shared = user.cat_pref * (place.category_one_hot > 0)
    top = int(np.argmax(shared))
    if shared[top] > _CATEGORY and _says(category := names.taxonomy.categories[top]):
        reasons.append(f"You enjoy {category} spots.")
    if user.home_city_id == place.city_id and user.areas.get(place.neighborhood_id, 0.0) > _AREA:
        area = names.neighborhoods.get((place.city_id, place.neighborhood_id))
        if area and place.city_id in names.divided:
            reasons.append(f"You often go out in {area}, and this place is there.")
    if company:
        reasons.append(company)
    return reasons[:MOST] or ["Recommended from your activity and that of people like you."]


@stage("explain")
def why_person(user: UserProfile, peer: UserProfile, names: Gazetteer) -> list[str]:
    """Up to three reasons why two people fit; never empty."""
    reasons = []
    if vibes := _overlap(user.vibe_pref, peer.vibe_pref, names.taxonomy.vibes):
        reasons.append(f"You share a vibe: {' and '.join(vibes)}.")
    if tags := _overlap(user.fine_pref, peer.fine_pref, names.taxonomy.tags):
        reasons.append(f"You both like {' and '.join(tags)}.")
    if user.home_city_id == peer.home_city_id:
        common = [a for a, weight in user.areas.items() if min(weight, peer.areas.get(a, 0.0)) > _AREA]
        common.sort(key=lambda a: (-user.areas[a] * peer.areas[a], a))
        areas = [names.neighborhoods[key] for a in common if (key := (user.home_city_id, a)) in names.neighborhoods]
        if areas and user.home_city_id in names.divided:
            reasons.append(f"You both often go out in {areas[0]}.")
    return reasons[:MOST] or ["You have similar activity patterns."]


def _overlap(a: Floats, b: Floats, names: Sequence[str]) -> list[str]:
    """Names of the strongest common weights, in words."""
    product = a * b
    common = np.flatnonzero(product > _OVERLAP)
    if len(names) == 1:  # what everyone shares is no reason
        return []
    top = common[np.argsort(-product[common], kind="stable")[:_TAGS]].tolist()
    return [names[i].replace("_", " ") for i in top if _says(names[i])]


def _says(name: str) -> bool:
    return name not in (OTHER, UNKNOWN)
