"""The app factory: parts loaded and warmed in the lifespan, closed at its end."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import structlog
import torch
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from api import errors, explain, recommend, routes, safety, state
from api.middleware import BodyLimit, RequestContext, add_request_id
from recsys.errors import RecsysError
from recsys.recommend.people import PeopleQuery, recommend_people
from recsys.recommend.places import recommend_places
from recsys.recommend.ranking import PlaceQuery
from recsys.settings import Settings

_LOG = structlog.get_logger("api")


def create_app(settings: Settings, *, ready: state.State | None = None) -> FastAPI:
    """Build the app.

    Args:
        settings: where things are.
        ready: parts made elsewhere, instead of the live version's.
    """
    configure_logs()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        held = ready or await state.load(settings)
        app.state.recsys = held
        torch.set_num_threads(1)  # a request scores one small batch: more threads only wait for each other
        try:
            if held.events is not None:
                held.events.start()
            await _warm(held)
            yield
        finally:
            await held.close()

    app: FastAPI = FastAPIOffline(
        title="recsys",
        summary="Places to go, and people to go with.",
        version=version("recsys"),
        lifespan=lifespan,
        redoc_url=None,
    )
    for part in (routes, recommend, explain, safety):
        app.include_router(part.router)
    errors.add_handlers(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(RequestContext)
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        return errors.document_problems(generate())

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI documents
    return app


async def _warm(held: state.State) -> None:
    """One request of each kind, so that the first user does not pay for lazy loading."""
    engine = held.engine
    if engine is None:
        _LOG.warning("nothing is published yet: run `recsys publish`")
        return
    try:
        await recommend_places(engine, PlaceQuery(held.warm_user), held.now())
        await recommend_people(engine, PeopleQuery(held.warm_user), held.now())
    except RecsysError as error:
        _LOG.warning("not warm", error=type(error).__name__, detail=str(error))
    _LOG.info("serving", model_version=engine.version)


class _Forward(logging.Handler):
    """What the HTTP server itself complains about, as one more JSON line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record of the standard library's."""
        _LOG.log(record.levelno, "server", detail=record.getMessage(), exc_info=record.exc_info)


def configure_logs() -> None:
    """JSON lines on standard output, each with the request's id."""
    server = logging.getLogger("uvicorn.error")
    server.handlers, server.propagate = [_Forward()], False
    server.setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            add_request_id,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
