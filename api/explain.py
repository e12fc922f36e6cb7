"""Why, and why not: one place or person traced through retrieval, rules and ranking."""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from api.fields import ANY_ID, AnyId, CityId, CityName, ModelVersion, Position, RequestId
from api.middleware import request_id, say
from api.recommend import place_query, target_place
from api.routes import ERRORS, Live
from api.rules import PlaceContext
from api.schemas import User
from api.traffic import choose
from recsys.errors import InvalidField
from recsys.recommend.people import PeopleQuery
from recsys.recommend.whynot import Explanation, Outcome, explain_person, explain_place
from recsys.taxonomy import MAX_TAGS

router = APIRouter(tags=["recommend"], responses=ERRORS)


class ExplainRequest(PlaceContext):
    """One user and one place or person, in the context of a request as it was or would be sent."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": 42, "place_id": 17, "top_k": 10}]})

    user_id: AnyId = Field(description=f"whose list: {ANY_ID}")
    place_id: AnyId | None = Field(default=None, description=f"why this place, or why not: {ANY_ID}")
    person_id: AnyId | None = Field(default=None, description=f"or this person: {ANY_ID}")
    target_place_id: AnyId | None = Field(default=None, description="of a request for people")
    activity_tags: list[Position] | None = Field(
        default=None, max_length=MAX_TAGS, description="of a request for people"
    )
    exclude_friends: Annotated[bool, Field(strict=True)] = Field(default=False, description="of a request for people")


class StandingOut(BaseModel):
    """Where it stood in one source."""

    source: str = Field(description="its name, as in `sources` of a list")
    rank: int | None = Field(
        description="from 1, in the source's own order; null: it does not name it, or may not tell"
    )
    of: int = Field(description="how many the source ranks in the city")


class BrokenOut(BaseModel):
    """A rule that it breaks."""

    rule: str = Field(description="hidden, block, city_id, online_store, or the field of the request")
    said: str = Field(description="in one sentence")


class ExplainResponse(BaseModel):
    """What became of it, in numbers and in words."""

    user: User = Field(description="whose list")
    outcome: Outcome = Field(
        description="in the list; a candidate after the first `top_k`; no candidate; or kept out by a rule"
    )
    broken: list[BrokenOut] = Field(description="every rule that it breaks")
    retrieval: list[StandingOut] = Field(description="where it stood in each source of candidates")
    rank: int | None = Field(description="from 1 among the candidates; null: it was none")
    candidates: int = Field(description="how many there were")
    score: float | None = Field(description="what the order is by; null: it was no candidate")
    score_parts: dict[str, float] = Field(
        description="log-odds that the score would lose if a kind of input were what is usual among the candidates"
    )
    words: list[str] = Field(description="the same in sentences")
    city_id: CityId
    city_name: CityName
    model_version: ModelVersion
    request_id: RequestId


@router.post("/explain")
async def explain(body: ExplainRequest, state: Live, request: Request) -> ExplainResponse:
    """Why a place or a person is in somebody's list, or why not. For the team, not for the user: it names blocks."""
    user_id = state.require().users.number("user_id", body.user_id)
    engine, _ = choose(state, [user_id])
    say(request, engine.version)
    if (body.place_id is None) == (body.person_id is None):
        raise InvalidField("place_id", "must be said, or else person_id, and not both")
    found: Explanation
    if body.place_id is not None:
        place_id = engine.places.number("place_id", body.place_id)
        found = await explain_place(engine, place_query(engine, body, user_id), place_id, state.now())
    else:
        assert body.person_id is not None
        engine.check("activity_tags", body.activity_tags or (), engine.gazetteer.taxonomy.tags)
        query = PeopleQuery(
            user_id,
            body.city_id,
            target_place(engine, body.target_place_id),
            tuple(dict.fromkeys(body.activity_tags or ())),
            body.time_slot,
            body.top_k,
            body.exclude_friends,
            body.cursor,
        )
        person_id = engine.users.number("person_id", body.person_id)
        found = await explain_person(engine, query, person_id, state.now())
    city = engine.gazetteer.cities[found.city_id]
    return ExplainResponse(
        user=User(user_id=user_id, **vars(engine.users.own(user_id))),
        outcome=found.outcome,
        broken=[BrokenOut(**vars(b)) for b in found.broken],
        retrieval=[StandingOut(**vars(s)) for s in found.retrieval],
        rank=found.rank,
        candidates=found.candidates,
        score=found.score,
        score_parts=found.parts,
        words=found.words(city, body.top_k),
        city_id=found.city_id,
        city_name=city,
        model_version=engine.version,
        request_id=request_id.get(),
    )
