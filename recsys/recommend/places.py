"""Places for one user: candidates of the city from every source, features, rank, explain."""

import asyncio
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from recsys.constants import SLOT_NOT_SAID
from recsys.online import Candidates, PlaceRow
from recsys.recommend.catalogue import Found, never_there
from recsys.recommend.engine import Engine, known, known_user
from recsys.recommend.explain import company, why_place
from recsys.recommend.policy import best_first
from recsys.sources import NEAR


@dataclass(frozen=True)
class PlaceQuery:
    """A request; see `api.schemas.PlaceRecommendationRequest` for what each field means."""

    user_id: int
    city_id: int | None = None
    time_slot: int | None = None
    desired_categories: tuple[int, ...] = ()
    top_k: int = 10
    exclude_visited: bool = False


@dataclass(frozen=True)
class RecommendedPlace:
    """One place of an answer; `score` is the place head's, in (0, 1), `sources` those that named it."""

    place_id: int
    name: str
    neighborhood_name: str
    score: float
    explanations: list[str]
    sources: list[str]


@dataclass(frozen=True)
class PlaceAnswer:
    """The list, best first, and the city it is for.

    Attributes:
        features_age_s: how old the oldest feature of a place is that this answer was ranked with; 0: read just now.
    """

    city_id: int
    city_name: str
    recommendations: list[RecommendedPlace]
    features_age_s: float


async def recommend_places(engine: Engine, query: PlaceQuery, now: datetime) -> PlaceAnswer:
    """Answer one request.

    Raises:
        UnknownUser: not in the feature store, or not in the live version.
        UnknownCity: no such city.
        Unavailable: a store did not answer in time, or what is hidden cannot be read.
        NotReady: nothing is published, or the online store is not filled.
        ArtifactError: the index holds a place that the version does not know.
    """
    vectors = await engine.index.vectors("users", [query.user_id])
    if query.user_id not in vectors:
        raise await engine.unknown(query.user_id, now)
    vector = vectors[query.user_id]
    city_id = engine.city(query.city_id, query.user_id)
    engine.safety.refresh()
    without = engine.catalogue.among(city_id, engine.safety.hidden())
    near = await engine.index.search(
        "places", vector, city_id=city_id, limit=NEAR, exclude=engine.catalogue.ids(city_id, without)
    )
    node, size = engine.homes.node(query.user_id), max(engine.candidates, query.top_k)

    def find() -> tuple[Found, Candidates]:
        found = engine.catalogue.find(
            node, city_id, near.ids, size, without=without, fresh=query.exclude_visited,
            apart=engine.homes.nodes(engine.safety.apart(query.user_id)),
        )  # fmt: skip
        return found, engine.features.rank_places(query.user_id, found.ids, now)

    found, online = await asyncio.to_thread(find)
    user = known_user(online.user, query.user_id)
    features = online.features
    if query.exclude_visited:  # the sources know where one was until the version was made, the pairs what came since
        kept = never_there(features)
        found, features = found.where(kept), features[kept]
    inputs = np.concatenate([features, engine.catalogue.signals(found)], axis=1)
    slot = SLOT_NOT_SAID if query.time_slot is None else query.time_slot
    scores = engine.ranker.score_places(
        vector, found.vectors, inputs, city_id=city_id, slot=slot, categories=query.desired_categories
    )

    def read(ids: list[int]) -> list[PlaceRow | None]:
        rows = engine.features.places(ids)
        engine.safety.refresh()  # what was decided since the search holds too
        barred = set(engine.safety.hidden().tolist())
        return [row if row and row.city_id == city_id and row.place_id not in barred else None for row in rows]

    chosen = await known(read, found.ids, best_first(found.ids, scores), query.top_k)
    names = engine.gazetteer
    return PlaceAnswer(
        city_id,
        names.cities[city_id],
        [
            RecommendedPlace(
                place.place_id,
                place.name,
                names.neighborhoods.get((place.city_id, place.neighborhood_id), ""),
                float(scores[at]),
                why_place(user, place, names, company(int(found.friends[at]), engine)),
                found.named(at, engine.k_anonymity),
            )
            for at, place in chosen
        ],
        online.age_s,
    )
