"""Lists to lay beside the model's: by popularity, by another loaded version, by the oracle. None is noted as shown."""

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request

from api.console.desk import AtDesk
from api.console.schemas import OraclePlace, OracleResponse, PopularOut, PopularRequest, PopularResponse
from api.fleet import Fleet
from api.middleware import request_id
from api.recommend import ask_places, filters, places_response, who
from api.routes import ERRORS, Live
from api.schemas import PlaceRecommendationRequest, PlaceRecommendationResponse
from recsys.artifacts import VERSION
from recsys.constants import N_TIME_SLOTS
from recsys.errors import UnknownVersion
from recsys.recommend.popular import popular_places
from recsys.recommend.reads import Reads

_EXAMPLES: Final = 100
VersionName = Annotated[str, Path(pattern=VERSION.pattern, description="a version that is loaded")]

router = APIRouter(prefix="/console", tags=["console"], responses=ERRORS)


@router.post("/popular")
async def popular(body: PopularRequest, state: Live) -> PopularResponse:
    """The city's most visited places, under the same filters: what everybody would get without a model."""
    engine = state.require()
    exclude = [engine.places.number(f"exclude_place_ids.{i}", id_) for i, id_ in enumerate(body.exclude_place_ids)]
    places, degraded = await popular_places(
        engine, body.city_id, filters(body.filters), exclude, body.top_k, state.now()
    )
    return PopularResponse(
        recommendations=[PopularOut(**vars(p), **vars(engine.places.own(p.place_id))) for p in places],
        city_id=body.city_id,
        city_name=engine.gazetteer.cities[body.city_id],
        degraded=list(degraded),
        model_version=engine.version,
        request_id=request_id.get(),
    )


@router.get("/oracle")
async def oracle(
    desk: AtDesk,
    state: Live,
    user_id: Annotated[int, Query(ge=0, lt=2**63, description="our number")],
    time_slot: Annotated[int | None, Query(ge=0, lt=N_TIME_SLOTS, description="left out: not said")] = None,
) -> OracleResponse:
    """What the synthetic world's own truth would answer to somebody at home, as `recsys evaluate` wrote it down."""
    engine = state.require()
    lists = await asyncio.to_thread(desk.oracle(state).lists)
    best = lists.get((user_id, time_slot), [])
    reads = Reads(engine, state.now())
    rows = [row for row in await asyncio.to_thread(reads.places, best) if row is not None]
    areas = engine.gazetteer.neighborhoods
    return OracleResponse(
        there=bool(lists),
        examples=list(dict.fromkeys(user for user, _ in lists))[:_EXAMPLES],
        recommendations=[
            OraclePlace(
                place_id=row.place_id,
                name=row.name,
                neighborhood_name=areas.get((row.city_id, row.neighborhood_id), ""),
                **vars(engine.places.own(row.place_id)),
            )
            for row in rows
        ],
        degraded=list(reads.close()),
    )


@router.post("/versions/{version}/places")
async def places_by_version(
    version: VersionName, body: PlaceRecommendationRequest, request: Request, state: Live
) -> PlaceRecommendationResponse:
    """`POST /recommend/places`, answered by a version of our choice among those that are loaded."""
    fleet: Fleet = request.app.state.fleet
    with fleet.borrow(version) as loaded:
        if loaded is None:
            raise UnknownVersion(f"version {version} is not loaded (got {', '.join(fleet.names) or 'none'})")
        user_id = who(loaded.engine, body)
        answer = await ask_places(loaded.engine, body, user_id, state.now())
        return places_response(loaded.engine, answer, user_id, answer.degraded)
