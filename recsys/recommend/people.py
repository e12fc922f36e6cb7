"""People for one user to go with: retrieve in the city, read ties, rank by both probabilities, explain."""

import asyncio
from dataclasses import dataclass
from datetime import datetime

from recsys.aggregates import ONLINE_PEOPLE
from recsys.constants import SLOT_NOT_SAID
from recsys.errors import UnknownPlace
from recsys.online import UserRow
from recsys.recommend import cursor
from recsys.recommend.cursor import next_cursor
from recsys.recommend.engine import Engine, known, known_user
from recsys.recommend.explain import why_person
from recsys.recommend.policy import best_first

_TIE_KNOWN = ONLINE_PEOPLE.index("tie_known")


@dataclass(frozen=True)
class PeopleQuery:
    """A request; see `api.schemas.PeopleRecommendationRequest` for what each field means."""

    user_id: int
    city_id: int | None = None
    target_place_id: int | None = None
    activity_tags: tuple[int, ...] = ()
    time_slot: int | None = None
    top_k: int = 10
    exclude_friends: bool = False
    cursor: str | None = None


@dataclass(frozen=True)
class RecommendedPerson:
    """One person of an answer; the three scores lie in (0, 1)."""

    user_id: int
    name: str
    compat_score: float
    attend_prob: float
    combined_score: float
    explanations: list[str]


@dataclass(frozen=True)
class PeopleAnswer:
    """The list, best first, and the city it is for; with `next_cursor` it goes on."""

    city_id: int
    city_name: str
    recommendations: list[RecommendedPerson]
    next_cursor: str | None


async def recommend_people(engine: Engine, query: PeopleQuery, now: datetime) -> PeopleAnswer:
    """Answer one request.

    Raises:
        UnknownUser, UnknownPlace, UnknownCity: an id that is not in the data or in the live version.
        InvalidField: friends are to be excluded and the data know none, or the cursor is of another list.
        Unavailable: a store did not answer in time, or who is blocked cannot be read.
        NotReady: nothing is published, or the online store is not filled.
    """
    vectors = await engine.index.vectors("users", [query.user_id], using="people")
    if query.user_id not in vectors:
        raise await engine.unknown(query.user_id, now)
    city_id = engine.city(query.city_id, query.user_id)
    target = None
    if query.target_place_id is not None:
        found = await engine.index.vectors("places", [query.target_place_id])
        if query.target_place_id not in found:
            raise UnknownPlace(f"there is no place {query.target_place_id} in model version {engine.version}")
        target = found[query.target_place_id]
    vector = vectors[query.user_id]
    whose = ("people", query.user_id, city_id)
    shown = () if query.cursor is None else cursor.decode(query.cursor, *whose)
    engine.safety.refresh()
    friends = engine.friends(query.user_id) if query.exclude_friends else []
    hits = await engine.index.search(
        "users",
        vector,
        city_id=city_id,
        limit=max(engine.candidates, query.top_k),
        exclude=[query.user_id, *engine.safety.apart(query.user_id), *friends, *shown],
        using="people",
    )
    online = await asyncio.to_thread(engine.features.rank_people, query.user_id, hits.ids, now)
    user = known_user(online.user, query.user_id)
    slot = SLOT_NOT_SAID if query.time_slot is None else query.time_slot
    compat, attend = engine.ranker.score_people(
        vector, hits.vectors, online.features, city_id=city_id, slot=slot, place=target, tags=query.activity_tags
    )
    combined = engine.ranker.combine(compat, attend)

    def read(ids: list[int]) -> list[UserRow | None]:
        return engine.features.users(ids, now)

    since = set(hits.ids[online.features[:, _TIE_KNOWN] > 0].tolist()) if query.exclude_friends else set()

    def admit(rows: list[UserRow]) -> list[bool]:
        engine.safety.refresh()  # what was decided since the search holds too
        apart = engine.safety.apart(query.user_id) | since
        return [row.home_city_id == city_id and row.user_id not in apart for row in rows]

    chosen = await known(read, admit, hits.ids, best_first(hits.ids, combined), query.top_k)
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
            )
            for at, peer in chosen
        ],
        next_cursor(query.top_k, whose, shown, [peer.user_id for _, peer in chosen]),
    )
