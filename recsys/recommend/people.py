"""People for one user to go with: candidates of the city from every source, ties, both probabilities, reasons."""

import asyncio
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from recsys.constants import SLOT_NOT_SAID
from recsys.errors import UnknownPlace
from recsys.online import Candidates, UserRow
from recsys.recommend.community import FoundPeople
from recsys.recommend.engine import Engine, known, known_user
from recsys.recommend.explain import why_person
from recsys.recommend.policy import best_first
from recsys.sources import NEAR


@dataclass(frozen=True)
class PeopleQuery:
    """A request; see `api.schemas.PeopleRecommendationRequest` for what each field means."""

    user_id: int
    city_id: int | None = None
    target_place_id: int | None = None
    activity_tags: tuple[int, ...] = ()
    time_slot: int | None = None
    top_k: int = 10


@dataclass(frozen=True)
class RecommendedPerson:
    """One person of an answer; the three scores lie in (0, 1), `sources` are those that named them."""

    user_id: int
    name: str
    compat_score: float
    attend_prob: float
    combined_score: float
    explanations: list[str]
    sources: list[str]


@dataclass(frozen=True)
class PeopleAnswer:
    """The list, best first, and the city it is for."""

    city_id: int
    city_name: str
    recommendations: list[RecommendedPerson]


async def recommend_people(engine: Engine, query: PeopleQuery, now: datetime) -> PeopleAnswer:
    """Answer one request.

    Raises:
        UnknownUser, UnknownPlace, UnknownCity: an id that is not in the data or in the live version.
        Unavailable: a store did not answer in time.
        NotReady: nothing is published, or the online store is not filled.
        ArtifactError: the index holds somebody whom the version does not know.
    """
    vectors = await engine.index.vectors("users", [query.user_id], using="people")
    if query.user_id not in vectors:
        raise await engine.unknown(query.user_id, now)
    city_id = engine.city(query.city_id, query.user_id)
    target = None
    if query.target_place_id is not None:
        at = await engine.index.vectors("places", [query.target_place_id])
        if query.target_place_id not in at:
            raise UnknownPlace(f"there is no place {query.target_place_id} in model version {engine.version}")
        target = at[query.target_place_id]
    vector = vectors[query.user_id]
    near = await engine.index.search(
        "users", vector, city_id=city_id, limit=NEAR, exclude=[query.user_id], using="people"
    )
    node, size = engine.homes.node(query.user_id), max(engine.candidates, query.top_k)

    def find() -> tuple[FoundPeople, Candidates]:
        found = engine.community.find(node, city_id, near.ids, size)
        return found, engine.features.rank_people(query.user_id, found.ids, now)

    found, online = await asyncio.to_thread(find)
    user = known_user(online.user, query.user_id)
    slot = SLOT_NOT_SAID if query.time_slot is None else query.time_slot
    inputs = np.concatenate([online.features, engine.community.signals(found)], axis=1)
    compat, attend = engine.ranker.score_people(
        vector, found.vectors, inputs, city_id=city_id, slot=slot, place=target, tags=query.activity_tags
    )
    combined = engine.ranker.combine(compat, attend)

    def read(ids: list[int]) -> list[UserRow | None]:
        rows = engine.features.users(ids, now)
        return [row if row is not None and row.home_city_id == city_id else None for row in rows]

    chosen = await known(read, found.ids, best_first(found.ids, combined), query.top_k)
    return PeopleAnswer(
        city_id,
        engine.gazetteer.cities[city_id],
        [
            RecommendedPerson(
                peer.user_id,
                peer.name,
                float(compat[at]),
                float(attend[at]),
                float(combined[at]),
                why_person(user, peer, engine.gazetteer),
                found.named(at),
            )
            for at, peer in chosen
        ],
    )
