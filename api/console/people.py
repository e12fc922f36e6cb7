"""Whom the console is about: found by name or number, or by chance; and what is known of them."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final

import numpy as np
from fastapi import APIRouter, Path, Query

from api.console.desk import AtDesk
from api.console.schemas import MAX_FOUND, PeopleFound, PersonFound, PersonOut, PlaceSeen, Text, Weighted
from api.routes import ERRORS, Live
from recsys.aggregates.finish import Floats
from recsys.directory import Directory
from recsys.errors import InvalidField, NotFound
from recsys.online import UserRow
from recsys.recommend.engine import Engine
from recsys.recommend.reads import Reads

_TAGS: Final = 8
_VIBES: Final = 5
_AREAS: Final = 5
_RECENT: Final = 12
Number = Annotated[int, Path(ge=0, lt=2**63, description="our number")]
_LEAST: Final = 0.01  # of a weight: less is nothing that anybody would say

router = APIRouter(prefix="/console", tags=["console"], responses=ERRORS)


@router.get("/users")
async def find_users(
    desk: AtDesk,
    state: Live,
    q: Annotated[Text, Query(description="part of a name, a number or an id of the source; empty: anybody")] = "",
    limit: Annotated[int, Query(ge=1, le=MAX_FOUND, description="at most so many")] = 10,
) -> PeopleFound:
    """People of the live version by name or id; without either, some by chance."""
    engine, directory = state.require(), desk.directory(state)
    text = q.strip()
    known = state.known_users
    if not text:
        ids = np.random.default_rng().choice(known, min(limit, len(known)), replace=False).tolist()
        return PeopleFound(users=await asyncio.to_thread(_named, engine, directory, ids))
    by_id = [i for i in _numbers(engine, text) if i in known]
    found = await asyncio.to_thread(directory.find, text, limit, known)
    ids = list(dict.fromkeys([*by_id, *(person.user_id for person in found)]))[:limit]
    return PeopleFound(users=await asyncio.to_thread(_named, engine, directory, ids))


@router.get("/users/{user_id}")
async def show_user(user_id: Number, desk: AtDesk, state: Live) -> PersonOut:
    """Somebody's tastes and latest places, as the online store has them now."""
    engine = state.require()
    reads = Reads(engine, state.now())
    row = await asyncio.to_thread(reads.user, user_id)
    if row is None:
        raise await reads.unknown(user_id)
    gazetteer, taxonomy = engine.gazetteer, engine.gazetteer.taxonomy
    latest = list(dict.fromkeys(row.recent.tolist()))[:_RECENT] if isinstance(row, UserRow) else []
    places = await asyncio.to_thread(reads.places, latest)
    named = await asyncio.to_thread(desk.directory(state).people, [user_id])
    areas = sorted(row.areas.items(), key=lambda item: -item[1])[:_AREAS]
    names = gazetteer.neighborhoods
    return PersonOut(
        user_id=user_id,
        name=row.name or (named[user_id].name if user_id in named else ""),
        city_id=row.home_city_id,
        city_name=gazetteer.cities.get(row.home_city_id, ""),
        **vars(engine.users.own(user_id)),
        neighborhood_name=names.get((row.home_city_id, row.home_neighborhood_id), ""),
        categories=_heaviest(row.cat_pref, taxonomy.categories, len(taxonomy.categories)),
        tags=_heaviest(row.fine_pref, taxonomy.tags, _TAGS),
        vibes=_heaviest(row.vibe_pref, taxonomy.vibes, _VIBES),
        neighborhoods=[
            Weighted(name=names[row.home_city_id, area], weight=round(weight, 4))
            for area, weight in areas
            if (row.home_city_id, area) in names
        ],
        recent=[
            PlaceSeen(
                place_id=place.place_id,
                name=place.name,
                neighborhood_name=names.get((place.city_id, place.neighborhood_id), ""),
                city_name=gazetteer.cities.get(place.city_id, ""),
                **vars(engine.places.own(place.place_id)),
            )
            for place in places
            if place is not None
        ],
        degraded=list(reads.close()),
    )


def _numbers(engine: Engine, text: str) -> list[int]:
    """Our numbers of what may be one, or an id of a source."""
    found = [int(text)] if text.isdecimal() and len(text) <= 18 else []
    try:
        return [*found, engine.users.number("q", text)]
    except (NotFound, InvalidField):  # nobody has it, or several sources do
        return found


def _named(engine: Engine, directory: Directory, ids: Sequence[int]) -> list[PersonFound]:
    people = directory.people(ids)
    out = []
    for user_id in ids:
        city_id = engine.homes.of(user_id)
        out.append(
            PersonFound(
                user_id=user_id,
                name=people[user_id].name if user_id in people else "",
                city_id=city_id,
                city_name=engine.gazetteer.cities.get(city_id, ""),
                **vars(engine.users.own(user_id)),
            )
        )
    return out


def _heaviest(weights: Floats, names: Sequence[str], most: int) -> list[Weighted]:
    order = np.argsort(-weights, kind="stable")[:most].tolist()
    return [Weighted(name=names[at], weight=round(float(weights[at]), 4)) for at in order if weights[at] >= _LEAST]
