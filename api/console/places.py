"""Where things are and what a card says of a place."""

import asyncio
from typing import Annotated, Final

import numpy as np
from fastapi import APIRouter, Path, Query, Request
from pydantic import Field

from api.console.desk import AtDesk, artifact_of
from api.console.schemas import MAX_PLACES, About, CityMap, CityOut, NeighborhoodOut, PlaceOut, PlacesOut
from api.fleet import Fleet
from api.routes import ERRORS, Live
from api.state import State
from recsys.constants import SLOT_BY_DAY_AND_TIME, TIME_SLOTS
from recsys.online import PlaceRow
from recsys.recommend.engine import Engine
from recsys.recommend.reads import Reads

_TAGS: Final = 6
_USER: Final = 42

router = APIRouter(prefix="/console", tags=["console"], responses=ERRORS)
Number = Annotated[int, Field(ge=0, lt=2**63)]
CityId = Annotated[int, Path(ge=0, lt=2**31, description="of the live version")]
Ids = Annotated[list[Number], Query(min_length=1, max_length=MAX_PLACES, description="our numbers; may repeat")]


@router.get("/about")
async def about(request: Request, desk: AtDesk, state: Live) -> About:
    """What the page begins with: versions, cities, time slots, the moment."""
    engine, artifact = state.require(), artifact_of(state)
    fleet: Fleet = request.app.state.fleet
    return About(
        model_version=engine.version,
        versions=list(dict.fromkeys([engine.version, *fleet.names])),
        synthetic=artifact is not None and bool(artifact.manifest["synthetic"]),
        someone=_someone(state),
        now=state.now().isoformat(),
        cities=[CityOut(city_id=i, city_name=name) for i, name in sorted(engine.gazetteer.cities.items())],
        time_slots=list(TIME_SLOTS),
        slot_by_day_and_time=[list(day) for day in SLOT_BY_DAY_AND_TIME],
        names=await asyncio.to_thread(lambda: desk.directory(state).there),
    )


@router.get("/cities/{city_id}")
async def city(city_id: CityId, desk: AtDesk, state: Live) -> CityMap:
    """A city's neighborhoods, and where they are."""
    engine = state.require()
    city_id = engine.city(city_id, -1)
    middles = await asyncio.to_thread(desk.directory(state).middles, city_id)
    areas = [(area, name) for (of, area), name in engine.gazetteer.neighborhoods.items() if of == city_id]
    return CityMap(
        city_id=city_id,
        city_name=engine.gazetteer.cities[city_id],
        neighborhoods=[
            NeighborhoodOut(
                neighborhood_id=area,
                name=name,
                places=int(engine.catalogue.matching(city_id, {"neighborhood_id": (area,)}).sum()),
                latitude=middles[area].latitude if area in middles else None,
                longitude=middles[area].longitude if area in middles else None,
            )
            for area, name in areas
        ],
    )


@router.get("/places")
async def show_places(ids: Ids, desk: AtDesk, state: Live) -> PlacesOut:
    """What cards say of some places, as the online store has them now."""
    engine = state.require()
    reads, wanted = Reads(engine, state.now()), list(dict.fromkeys(ids))
    rows = [row for row in await asyncio.to_thread(reads.places, wanted) if row is not None]
    spots = await asyncio.to_thread(desk.directory(state).spots, wanted)
    visitors = _visitors(engine, rows)
    taxonomy, names = engine.gazetteer.taxonomy, engine.gazetteer.neighborhoods
    return PlacesOut(
        places=[
            PlaceOut(
                place_id=row.place_id,
                name=row.name,
                city_id=row.city_id,
                neighborhood_id=row.neighborhood_id,
                neighborhood_name=names.get((row.city_id, row.neighborhood_id), ""),
                price_band=row.price_band,
                time_slot=row.typical_time_slot,
                categories=[taxonomy.categories[c] for c in np.flatnonzero(row.category_one_hot > 0)],
                tags=[
                    taxonomy.tags[t]
                    for t in np.argsort(-row.fine_tag_vector, kind="stable")[:_TAGS]
                    if row.fine_tag_vector[t] > 0
                ],
                visitors=visitors.get(row.place_id),
                latitude=spots[row.place_id].latitude if row.place_id in spots else None,
                longitude=spots[row.place_id].longitude if row.place_id in spots else None,
                **vars(engine.places.own(row.place_id)),
            )
            for row in rows
        ],
        degraded=list(reads.close()),
    )


def _someone(state: State) -> int:
    """User 42, whom the documentation asks for too, where the version knows them."""
    return _USER if len(state.require().homes.nodes([_USER])) else state.warm_user


def _visitors(engine: Engine, rows: list[PlaceRow]) -> dict[int, int]:
    """How many users had been at each of some places, of those that the version knows."""
    out: dict[int, int] = {}
    for city_id in {row.city_id for row in rows} & set(engine.gazetteer.cities):
        ids, _, visitors = engine.catalogue.everything(city_id)
        at = np.flatnonzero(np.isin(ids, [row.place_id for row in rows]))
        out |= dict(zip(ids[at].tolist(), visitors[at].tolist(), strict=True))
    return out
