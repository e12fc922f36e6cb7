"""Recommendations: a request's fields in, an answer's fields out."""

from collections.abc import Awaitable, Sequence
from dataclasses import replace
from datetime import datetime

from fastapi import APIRouter

from api.middleware import request_id
from api.routes import ERRORS, Live
from api.rules import PlaceContext, PlaceFilters, PlaceRules
from api.schemas import (
    GroupMember,
    GroupRecommendation,
    GroupRecommendationRequest,
    GroupRecommendationResponse,
    PeopleRecommendation,
    PeopleRecommendationRequest,
    PeopleRecommendationResponse,
    PlaceRecommendation,
    PlaceRecommendationRequest,
    PlaceRecommendationResponse,
    User,
)
from api.traffic import Asked
from recsys.errors import InvalidField, UnknownUser
from recsys.recommend.engine import Engine
from recsys.recommend.filters import NO_FILTERS, Filters
from recsys.recommend.groups import GroupAnswer, GroupPlace, recommend_group
from recsys.recommend.newcomer import NOBODY, Profile, recommend_to_anybody
from recsys.recommend.people import PeopleAnswer, PeopleQuery, recommend_people
from recsys.recommend.places import PlaceAnswer
from recsys.recommend.ranking import PlaceQuery

router = APIRouter(tags=["recommend"], responses=ERRORS)


@router.post("/recommend/places")
async def places(body: PlaceRecommendationRequest, state: Live, asked: Asked) -> PlaceRecommendationResponse:
    """Places of one city for one user, best first, with reasons."""
    user_id = who(state.require(), body)

    def ask(engine: Engine, now: datetime) -> Awaitable[PlaceAnswer]:
        return ask_places(engine, body, user_id, now)

    def shown(answer: PlaceAnswer) -> list[tuple[int, float]]:
        return [(r.place_id, r.score) for r in answer.recommendations]

    said_by = await asked.answer("place", [None if user_id == NOBODY else user_id], ask, shown)
    return places_response(said_by.engine, said_by.answer, user_id, said_by.degraded)


@router.post("/recommend/people")
async def people(body: PeopleRecommendationRequest, state: Live, asked: Asked) -> PeopleRecommendationResponse:
    """People of one city for one user to go with, best first, with reasons."""
    user_id = state.require().users.number("user_id", body.user_id)

    def ask(engine: Engine, now: datetime) -> Awaitable[PeopleAnswer]:
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
        return recommend_people(engine, query, now)

    def shown(answer: PeopleAnswer) -> list[tuple[int, float]]:
        return [(r.user_id, r.combined_score) for r in answer.recommendations]

    said_by = await asked.answer("person", [user_id], ask, shown)
    engine, answer = said_by.engine, said_by.answer
    return PeopleRecommendationResponse(
        user=_user(engine, user_id),
        recommendations=[
            PeopleRecommendation(**vars(r), **vars(engine.users.own(r.user_id))) for r in answer.recommendations
        ],
        city_id=answer.city_id,
        city_name=answer.city_name,
        features_age_s=round(answer.features_age_s, 3),
        next_cursor=answer.next_cursor,
        degraded=list(said_by.degraded),
        model_version=engine.version,
        request_id=request_id.get(),
    )


@router.post("/recommend/groups")
async def groups(body: GroupRecommendationRequest, state: Live, asked: Asked) -> GroupRecommendationResponse:
    """Places of one city that suit several users, with what each place is to each of them."""
    users = [state.require().users.number(f"user_ids.{i}", given) for i, given in enumerate(body.user_ids)]
    for at, user_id in enumerate(users):
        if user_id in users[:at]:
            raise InvalidField(f"user_ids.{at}", f"must name each user once (got {user_id} twice)")

    def ask(engine: Engine, now: datetime) -> Awaitable[GroupAnswer]:
        query = _with_words(place_query(engine, body, users[0]), body)
        return recommend_group(engine, query, users, body.strategy, now)

    def shown(answer: GroupAnswer) -> list[tuple[int, float]]:
        return [(r.place_id, r.score) for r in answer.recommendations]

    said_by = await asked.answer("group", users, ask, shown)
    engine, answer = said_by.engine, said_by.answer
    return GroupRecommendationResponse(
        users=[_user(engine, user_id) for user_id in users],
        strategy=answer.strategy,
        recommendations=[_group_place(engine, r) for r in answer.recommendations],
        city_id=answer.city_id,
        city_name=answer.city_name,
        features_age_s=round(answer.features_age_s, 3),
        next_cursor=answer.next_cursor,
        degraded=list(said_by.degraded),
        model_version=engine.version,
        request_id=request_id.get(),
    )


def ask_places(engine: Engine, body: PlaceRecommendationRequest, user_id: int, now: datetime) -> Awaitable[PlaceAnswer]:
    """What a version answers to a request for places."""
    said = body.profile
    profile = None if said is None else Profile(tuple(dict.fromkeys(said.categories)), tuple(dict.fromkeys(said.tags)))
    query = _with_words(place_query(engine, body, user_id), body)
    return recommend_to_anybody(engine, query, profile, now)


def places_response(
    engine: Engine, answer: PlaceAnswer, user_id: int, degraded: Sequence[str]
) -> PlaceRecommendationResponse:
    """An answer about places, with what the sources call everything."""
    return PlaceRecommendationResponse(
        user=None if user_id == NOBODY else _user(engine, user_id),
        recommendations=[
            PlaceRecommendation(**vars(r), **vars(engine.places.own(r.place_id))) for r in answer.recommendations
        ],
        city_id=answer.city_id,
        city_name=answer.city_name,
        features_age_s=round(answer.features_age_s, 3),
        next_cursor=answer.next_cursor,
        degraded=list(degraded),
        model_version=engine.version,
        request_id=request_id.get(),
    )


def _group_place(engine: Engine, place: GroupPlace) -> GroupRecommendation:
    members = [GroupMember(**vars(m), **vars(engine.users.own(m.user_id))) for m in place.members]
    return GroupRecommendation(**vars(place) | {"members": members}, **vars(engine.places.own(place.place_id)))


def _user(engine: Engine, user_id: int) -> User:
    return User(user_id=user_id, **vars(engine.users.own(user_id)))


def target_place(engine: Engine, given: int | str | None) -> int | None:
    """Number of the place to go to, if one is said."""
    return None if given is None else engine.places.number("target_place_id", given)


def _with_words(query: PlaceQuery, body: PlaceRules | GroupRecommendationRequest) -> PlaceQuery:
    return replace(query, reasons=body.explain != "none", parts=body.explain == "parts")


def place_query(engine: Engine, body: PlaceContext, user_id: int) -> PlaceQuery:
    """What a request asks of a list of places.

    Raises:
        InvalidField, UnknownPlace: the live version has no such category, or place to leave out.
    """
    engine.check("desired_categories", body.desired_categories or (), engine.gazetteer.taxonomy.categories)
    return PlaceQuery(
        user_id,
        body.city_id,
        body.time_slot,
        tuple(dict.fromkeys(body.desired_categories or ())),
        body.top_k,
        body.exclude_visited,
        filters(body.filters),
        tuple(engine.places.number(f"exclude_place_ids.{i}", id_) for i, id_ in enumerate(body.exclude_place_ids)),
        body.diversity,
        body.novelty,
        body.cursor,
    )


def filters(said: PlaceFilters | None) -> Filters:
    """A request's filters.

    Raises:
        InvalidField: a price range is empty.
    """
    if said is None:
        return NO_FILTERS
    if said.price is not None and said.price.min > said.price.max:
        raise InvalidField("filters.price", f"min must be at most max (got {said.price.min} and {said.price.max})")
    return Filters(
        None if said.price is None else (said.price.min, said.price.max),
        tuple(said.categories or ()),
        tuple(said.tags or ()),
        tuple(said.neighborhoods or ()),
        said.open_slot,
    )


def who(engine: Engine, body: PlaceRecommendationRequest) -> int:
    """The user's number; NOBODY for who has none, and says a profile instead."""
    if body.user_id is None:
        if body.profile is None:
            raise InvalidField("user_id", "must be said, or a profile of somebody who has none yet")
        return NOBODY
    try:
        return engine.users.number("user_id", body.user_id)
    except UnknownUser:
        if body.profile is None:
            raise
        return NOBODY
