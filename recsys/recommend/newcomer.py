"""Places for somebody whom the version does not know: popular ones that fit what they say of themselves.

No vector and no history, so no model: the answer says so (`degraded`).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np

from recsys.aggregates.finish import Floats
from recsys.errors import InvalidField, UnknownUser
from recsys.online import PlaceRow
from recsys.recommend import cursor
from recsys.recommend.cursor import next_cursor
from recsys.recommend.engine import Engine, known
from recsys.recommend.places import PlaceAnswer, RecommendedPlace, recommend_places
from recsys.recommend.policy import arrange
from recsys.recommend.ranking import PlaceQuery
from recsys.recommend.reads import Reads
from recsys.recommend.rules import Rules
from recsys.recommend.work import in_thread

NOBODY: Final = -1  # instead of a user's number: somebody who has none yet
WITHOUT: Final = "user_vector"
NEWCOMER_SOURCES: Final = ("popular", "profile")


@dataclass(frozen=True)
class Profile:
    """What somebody says of themselves: positions of categories and tags that they like."""

    categories: tuple[int, ...] = ()
    tags: tuple[int, ...] = ()


async def recommend_to_anybody(
    engine: Engine, query: PlaceQuery, profile: Profile | None, now: datetime
) -> PlaceAnswer:
    """Answer one request: as `recommend_places` does, or by a profile where that knows no such user.

    Raises:
        InvalidField: somebody unknown did not say a city, or the profile is not of this version's taxonomy.
    """
    if query.user_id != NOBODY:
        try:
            return await recommend_places(engine, query, now)
        except UnknownUser:
            if profile is None:
                raise
    assert profile is not None, "whoever has neither a number nor a profile was refused before"
    return await _recommend(engine, query, profile, Reads(engine, now))


async def _recommend(engine: Engine, query: PlaceQuery, profile: Profile, reads: Reads) -> PlaceAnswer:
    names, taxonomy = engine.gazetteer, engine.gazetteer.taxonomy
    if query.city_id is None:
        raise InvalidField("city_id", "must be said for somebody who is not known yet")
    engine.check("profile.categories", profile.categories, taxonomy.categories)
    engine.check("profile.tags", profile.tags, taxonomy.tags)
    city_id = engine.city(query.city_id, query.user_id)
    whose = ("newcomer", query.user_id, city_id)
    shown = () if query.cursor is None else cursor.decode(query.cursor, *whose)
    rules = Rules.of(engine, city_id, query.filters, (*query.exclude, *shown))
    ids, vectors, visitors = engine.catalogue.everything(city_id)
    fit = _fit(engine, city_id, profile, query.desired_categories)
    rank = np.searchsorted(np.sort(visitors), visitors, side="left") / max(len(visitors), 1)  # share that has fewer
    worth = (rank if fit is None else (rank + fit) / 2).astype(np.float32)
    may = np.flatnonzero(~rules.without)
    order = may[
        arrange(
            ids[may], worth[may], vectors[may], np.log1p(visitors[may]),
            diversity=query.diversity, novelty=query.novelty, top_k=query.top_k,
        )
    ]  # fmt: skip
    chosen = await in_thread(known, reads.places, rules.admit, ids, order, query.top_k)
    return PlaceAnswer(
        city_id,
        names.cities[city_id],
        [
            RecommendedPlace(
                place.place_id,
                place.name,
                names.neighborhoods.get((place.city_id, place.neighborhood_id), ""),
                float(worth[at]),
                _why(engine, profile, query, place, int(visitors[at])) if query.reasons else [],
                [
                    name
                    for name, said in zip(NEWCOMER_SOURCES, (True, fit is not None and fit[at] > 0), strict=True)
                    if said
                ],
            )
            for at, place in chosen
        ],
        0.0,
        next_cursor(query.top_k, whose, shown, [place.place_id for _, place in chosen]),
        reads.close(WITHOUT),
    )


def _fit(engine: Engine, city: int, profile: Profile, desired: tuple[int, ...]) -> Floats | None:
    """(C,) 0 to 1: the share of what was said, categories and tags, that a place meets; None where nothing was."""
    said = {"categories": tuple({*profile.categories, *desired}), "tags": profile.tags}
    met = [engine.catalogue.matching(city, {facet: values}) for facet, values in said.items() if values]
    if not met:
        return None
    out: Floats = np.mean(met, axis=0, dtype=np.float32)
    return out


def _why(engine: Engine, profile: Profile, query: PlaceQuery, place: PlaceRow, visitors: int) -> list[str]:
    """One to three reasons, each true in the data."""
    taxonomy, reasons = engine.gazetteer.taxonomy, []
    if tags := [taxonomy.tags[t].replace("_", " ") for t in profile.tags if place.fine_tag_vector[t] > 0][:2]:
        reasons.append(f"Matches your interest in {' and '.join(tags)}.")
    likes = [
        taxonomy.categories[c]
        for c in (*query.desired_categories, *profile.categories)
        if place.category_one_hot[c] > 0
    ]
    if likes:
        reasons.append(f"You asked for {likes[0]} spots.")
    if visitors >= engine.k_anonymity:
        reasons.append(f"{visitors} people have been there or looked at it.")
    return reasons or [f"It is in {engine.gazetteer.cities[place.city_id]}, and few people know it yet."]
