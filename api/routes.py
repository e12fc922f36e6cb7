"""The endpoints, thin: a request's fields in, an answer's fields out."""

from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse

from api.events import take
from api.fleet import Fleet
from api.middleware import request_id, say
from api.page import welcome
from api.schemas import (
    EventsRequest,
    EventsResponse,
    Health,
    Problem,
    Ready,
    Root,
    TaxonomyResponse,
)
from api.state import State
from recsys.recommend.reads import answering

PROBLEM: dict[str, Any] = {"model": Problem}  # `api.errors.document_problems` gives it its content type
ERRORS: dict[int | str, dict[str, Any]] = {
    400: PROBLEM | {"description": "the body cannot be read"},
    401: PROBLEM | {"description": "API keys are configured, and none was sent"},
    403: PROBLEM | {"description": "the API key is not known, or has not the role that this needs"},
    404: PROBLEM | {"description": "no such user, place or city"},
    408: PROBLEM | {"description": "the body did not arrive in time"},
    413: PROBLEM | {"description": "the body is too large"},
    422: PROBLEM | {"description": "a field is out of its range"},
    429: PROBLEM | {"description": "too many requests with this API key; `Retry-After` says when there may be more"},
    500: PROBLEM | {"description": "a fault of ours; the request id finds it in the log"},
    503: PROBLEM | {"description": "a store does not answer, nothing is published yet, or too many requests at once"},
}
# Before every endpoint, whatever it does
GUARDED: dict[int | str, dict[str, Any]] = {status: ERRORS[status] for status in (401, 403, 429, 503)}
_LINKS = {"console": "/console", "docs": "/docs", "ready": "/ready", "health": "/health", "openapi": "/openapi.json"}

router = APIRouter()


async def _state(request: Request) -> AsyncIterator[State]:
    fleet: Fleet = request.app.state.fleet
    with fleet.lease() as state:
        say(request, state.engine.version if state.engine else None)
        yield state


Live = Annotated[State, Depends(_state)]


@router.get("/", response_model=Root, responses={200: {"content": {"text/html": {}}}}, tags=["about"])
async def root(request: Request, response: Response, state: Live) -> Any:
    """What this is and where to go; a page for browsers, JSON for everyone else."""
    engine = state.engine
    body = Root(
        name="recsys", version=version("recsys"), model_version=engine.version if engine else None, links=_LINKS
    )
    if "text/html" in request.headers.get("accept", ""):
        page = welcome(body, str(request.base_url), engine.gazetteer.cities if engine else {})
        return HTMLResponse(page, headers={"vary": "accept"})
    response.headers["vary"] = "accept"
    return body


@router.get("/health", tags=["about"])
async def health() -> Health:
    """The process is alive."""
    return Health(status="alive")


@router.get("/ready", responses={503: ERRORS[503]}, tags=["about"])
async def ready(state: Live) -> Ready:
    """A version is loaded, with its popular lists, and the index has answered: requests may come.

    A store that does not answer, or a published version that cannot be loaded, makes it degraded, not unready, since
    answers do without it; 503 says what is missing.
    """
    engine = state.require()
    stores = await answering(engine, state.now())
    parts = {name: "answers" if there else "does not answer" for name, there in stores.items()}
    parts |= {"model": "; ".join(state.troubles) or "loaded", "popular": "loaded"}
    whole = all(stores.values()) and not state.troubles
    return Ready(status="ready" if whole else "degraded", model_version=engine.version, parts=parts)


@router.get("/taxonomy", responses=GUARDED, tags=["about"])
async def taxonomy(state: Live) -> TaxonomyResponse:
    """What the positions in `desired_categories` and `activity_tags` mean in the live version."""
    engine = state.require()
    return TaxonomyResponse(**engine.gazetteer.taxonomy.to_dict(), model_version=engine.version)


@router.post("/events", responses=ERRORS, tags=["events"])
async def events(body: EventsRequest, state: Live) -> EventsResponse:
    """What people did: on disk when this answers, and in what the next answer is made from."""
    told = await take(state, body.events)
    return EventsResponse(
        **vars(told.receipt),
        rejected=told.rejected,
        model_version=state.require().version,
        request_id=request_id.get(),
    )
