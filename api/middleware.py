"""Around every request: an id in answer and log, one access line and its figures, a limit on the body. Plain ASGI."""

import re
import time
import uuid
from collections.abc import Callable, Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.tracing import Trace
from recsys.stages import listening

request_id: ContextVar[str] = ContextVar("request_id", default="-")

LATE: Final = "late"  # in a request's state: the server gave up waiting for the rest of the body
MAX_BODY_BYTES: Final = 64 * 1024
MAX_EVENTS_BYTES: Final = 1024 * 1024
_MAX_BYTES: Final = {"/events": MAX_EVENTS_BYTES}
_SANE_ID: Final = re.compile(r"^[A-Za-z0-9._-]{1,64}$")
_LOG = structlog.get_logger("access")


Counted = Callable[[str, str, int, float, Mapping[str, float]], None]  # method, route, status, seconds, and by stage


class RequestContext:
    """Give each request an id: the caller's `X-Request-ID` if it is sane, else a new one; time it and its stages.

    Args:
        app: what answers.
        counted: told of each request when it has ended; see `api.metrics.Metrics.requested`.
    """

    def __init__(self, app: ASGIApp, counted: Counted = lambda *_: None) -> None:
        self._app, self._counted = app, counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        token = request_id.set(given if _SANE_ID.match(given) else uuid.uuid4().hex)
        start, trace = time.perf_counter(), Trace()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id.get()
                trace.describe(_said(scope))
            await send(message)

        try:
            with listening(trace.stages):
                await self._app(scope, receive, send_with_id)
        finally:
            seconds, route = time.perf_counter() - start, _route(scope)
            method, path, ms, said = scope["method"], scope["path"], round(seconds * 1e3, 2), _said(scope)
            _LOG.info("request", method=method, path=path, route=route, status=status, ms=ms, **said)
            self._counted(method, route, status, seconds, trace.stages.seconds())
            request_id.reset(token)


def say(request: HTTPConnection, version: str | None, degraded: tuple[str, ...] = ()) -> None:
    """Which version answers a request, and what it has to do without: for the log, and the request's span."""
    request.state.model_version, request.state.degraded = version, degraded


def _said(scope: Scope) -> dict[str, Any]:
    """What `say` said, and the name of the API key, without what is empty."""
    state = scope.get("state", {})
    said = {name: state[name] for name in ("model_version", "degraded") if state.get(name)}
    return said if (key := state.get("key")) is None else {"key": key.name, **said}


def _route(scope: Scope) -> str:
    """The template of the path that was found, since a path itself may hold an id; `other`: a page of FastAPI's own."""
    return str(getattr(scope.get("route"), "path_format", "other" if "endpoint" in scope else "none"))


class LastResort:
    """Answer for what nobody foresaw: logged whole, told without its text."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = False

        async def noted(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:  # noqa: BLE001 - there is none after it
            _LOG.error("unexpected", exc_info=error)
            if not began:
                from api.errors import unexpected

                await unexpected()(scope, receive, send)


class BodyLimit:
    """Refuse a body over its path's limit with 413, stated or streamed, before anything reads it whole; 408: late."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        chunks, size, more = [], 0, True
        limit = _MAX_BYTES.get(scope["path"], MAX_BODY_BYTES)
        stated = Headers(scope=scope).get("content-length", "0")
        if stated.isdigit() and int(stated) > limit:
            await self._refuse(413, f"the body must be at most {limit} bytes", scope, receive, send)
            return
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            if scope.get("state", {}).get(LATE):
                await self._refuse(408, "the body did not arrive in time", scope, receive, send)
                return
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            more = message.get("more_body", False)
            if size > limit:
                await self._refuse(413, f"the body must be at most {limit} bytes", scope, receive, send)
                return
        body: Message | None = {"type": "http.request", "body": b"".join(chunks), "more_body": False}

        async def replay() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            message, body = body, None
            return message

        await self._app(scope, replay, send)

    async def _refuse(self, status: int, detail: str, scope: Scope, receive: Receive, send: Send) -> None:
        from api.errors import problem

        await problem(status, detail)(scope, receive, send)


def add_request_id(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Structlog processor: every line of a request carries its id."""
    event.setdefault("request_id", request_id.get())
    return event
