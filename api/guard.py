"""What stands before every endpoint, outermost first: id and log, CORS, key, rate, body, requests at work."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import problem
from api.keys import Keys, RequireKey, is_open, key_of
from api.middleware import BodyLimit, LastResort, RequestContext
from recsys.errors import ConfigError
from recsys.recommend.fallback import HURRIED
from recsys.settings import Settings

_RETRY_AFTER_S: Final = 1
_HURRY_S: Final = 0.25  # so long after a refusal others may follow
_METHODS: Final = ("DELETE", "GET", "POST", "PUT")
_SENT: Final = ("Authorization", "X-API-Key", "X-Request-ID")
_SHOWN: Final = ("Retry-After", "X-Request-ID")
_MEASURED: Final = "/metrics"  # tells most when all else is refused


def guard(app: FastAPI, settings: Settings) -> Keys | None:
    """Put everything around an app, whose metrics are there already.

    Returns:
        The keys that are configured.

    Raises:
        ConfigError: keys, origins or limits that cannot be.
    """
    keys = Keys.of(settings)
    app.add_middleware(Shed, most=settings.max_in_flight)  # after the body: who sends slowly must not take a place
    app.add_middleware(BodyLimit)
    if settings.rate_limit is not None:
        if keys is None:
            raise ConfigError("RECSYS_RATE_LIMIT counts by API key: set RECSYS_API_KEYS too (`recsys key` makes one)")
        app.add_middleware(RateLimit, rate=settings.rate_limit, burst=settings.rate_burst)
    if keys is not None:
        app.add_middleware(RequireKey, keys=keys)
    app.add_middleware(LastResort)  # within CORS: pages of other origins hear of a fault too
    if origins := _origins(settings.cors_origins):
        app.add_middleware(Cors, origins=origins)
    app.add_middleware(RequestContext, counted=app.state.metrics.requested)
    return keys


class Shed:
    """Refuse with 503 what comes while as many requests as may be are at work. No queue: who waits there is late.

    Before it comes to that, the last third is answered in a hurry, from what is at hand, which takes less time. That
    third is for moments: while requests are refused there is none, and all the others are answered in a hurry.

    Args:
        app: what they ask.
        most: requests at the same time, in this process.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most, self._whole = app, most, most - most // 3
        self._at_work, self._refused_at = 0, -math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or is_open(scope["path"]) or scope["path"] == _MEASURED:
            await self._app(scope, receive, send)
            return
        now = time.monotonic()
        pressed = now < self._refused_at + _HURRY_S
        if self._at_work >= (self._whole if pressed else self._most):
            self._refused_at = now
            refused = problem(503, "too many requests at once", headers={"Retry-After": str(_RETRY_AFTER_S)})
            await refused(scope, receive, send)
            return
        hurried = HURRIED.set(pressed or self._at_work >= self._whole)
        self._at_work += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._at_work -= 1
            HURRIED.reset(hurried)


class Bucket:
    """A token bucket, as the moment at which it is full again (the generic cell rate algorithm).

    Args:
        rate: tokens a second.
        burst: tokens that it holds, 1 or more.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._each_s, self._slack_s = 1 / rate, (burst - 1) / rate
        self._full_at = -math.inf

    def take(self, now: float) -> float:
        """Take a token.

        Args:
            now: seconds, of a clock that only goes on.

        Returns:
            0; or, where there is none, seconds until there is one.
        """
        begins = max(now, self._full_at)
        if (wait_s := begins - now - self._slack_s) > 1e-9:  # differences of floats
            return wait_s
        self._full_at = begins + self._each_s
        return 0.0


class RateLimit:
    """So many requests a second for each key, else 429. For this process alone.

    Args:
        app: what they ask.
        rate: requests a second.
        burst: requests at once, after a while without any.
        clock: seconds.
    """

    def __init__(self, app: ASGIApp, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._app, self._rate, self._burst, self._clock = app, rate, burst, clock
        self._buckets: dict[str, Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        key = key_of(scope) if scope["type"] == "http" else None
        if key is not None:
            bucket = self._buckets.get(key.name)
            if bucket is None:
                bucket = self._buckets[key.name] = Bucket(self._rate, self._burst)
            if (wait_s := bucket.take(self._clock())) > 0:
                said = f"this key may ask {self._rate:g} times a second, and {self._burst} times at once"
                refused = problem(429, said, headers={"Retry-After": str(math.ceil(wait_s))})
                await refused(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Cors(CORSMiddleware):
    """Starlette's, for pages of some origins; what it refuses has the shape of all errors."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(app, origins, _METHODS, _SENT, expose_headers=_SHOWN)

    def preflight_response(self, request_headers: Headers) -> Response:
        """What a browser hears before it asks."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        kept = {name: value for name, value in answer.headers.items() if name.startswith(("access-control", "vary"))}
        return problem(answer.status_code, bytes(answer.body).decode(), headers=kept)


def _origins(text: str) -> list[str]:
    origins = [origin.strip() for origin in text.split(",") if origin.strip()]
    for origin in origins:
        at = urlsplit(origin)
        whole = at.scheme in ("http", "https") and at.netloc and f"{at.scheme}://{at.netloc}" == origin
        if origin != "*" and not whole:
            raise ConfigError(f"RECSYS_CORS_ORIGINS must be origins like https://app.example, or * (got {origin!r})")
    return origins
