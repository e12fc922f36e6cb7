"""The app factory: parts loaded and warmed in the lifespan, closed at its end."""

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Final

import structlog
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from api import errors, explain, metrics, recommend, routes, safety
from api.console import add_console
from api.document import document
from api.fleet import Fleet
from api.follow import Follower
from api.guard import guard
from api.keys import document_keys
from api.middleware import add_request_id
from api.state import State
from api.traffic import Shadows
from recsys.settings import Settings

_LOG = structlog.get_logger("api")
# Python's own 5 ms is the time of a whole answer: who has read from the online store would wait so long to go on.
_SWITCH_S: Final = 0.001


def create_app(settings: Settings, *, ready: State | Follower | None = None, worker: int | None = None) -> FastAPI:
    """Build the app.

    Args:
        settings: where things are.
        ready: parts made elsewhere, or what was opened before; default: the live version, opened at start-up.
        worker: which of several processes that answer on one port this is; None: the only one.

    Raises:
        ConfigError: keys, origins or limits that cannot be.
    """
    configure_logs()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        follower = None
        if isinstance(ready, State):
            fleet = Fleet(ready)
            if ready.events is not None:
                ready.events.start()
        else:
            follower = ready or await Follower.open(settings)
            fleet = follower.fleet
            follower.start()
        app.state.fleet, app.state.shadows = fleet, Shadows()
        sys.setswitchinterval(_SWITCH_S)
        try:
            yield
        finally:
            await app.state.shadows.close()
            await (follower or fleet).close()

    app: FastAPI = FastAPIOffline(
        title="recsys",
        summary="Places to go, and people to go with.",
        version=version("recsys"),
        lifespan=lifespan,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,  # what generated clients call their methods
    )
    for part in (routes, recommend, explain, safety, metrics):
        app.include_router(part.router)
    app.state.metrics = metrics.Metrics(lambda: app.state.fleet, lambda: app.state.shadows.dropped, worker=worker)
    add_console(app, settings)
    errors.add_handlers(app)
    keys = guard(app, settings)
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if (made := app.openapi_schema) is None:
            made = document(errors.document_problems(generate()))
            document_keys(made, required=keys is not None)
        return made

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI documents
    return app


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
