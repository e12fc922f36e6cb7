"""Which version answers a request, and who is told of the answer: impressions, and a version in the shadow."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Final, Generic, Protocol, TypeVar

import structlog
from fastapi import Depends, Request

from api.fleet import Fleet
from api.metrics import Metrics
from api.middleware import request_id, say
from api.routes import Live
from api.state import State
from recsys.artifacts import VERSION
from recsys.errors import ConfigError, RecsysError
from recsys.impressions import Arm, Impression, Kind
from recsys.recommend.engine import Engine
from recsys.stages import listening

_SHARE: Final = re.compile(r"0|1|0?\.\d{1,6}|[01]\.0{1,6}")
_MOST_SHADOWS: Final = 2  # requests computed once more at the same time
_LOG = structlog.get_logger("api")


class Answer(Protocol):
    """What all answers have."""

    @property
    def city_id(self) -> int:
        """Which city it is for."""

    @property
    def features_age_s(self) -> float:
        """How old the oldest feature is that it was ranked with."""

    @property
    def degraded(self) -> tuple[str, ...]:
        """What it had to do without."""


A = TypeVar("A", bound=Answer)


@dataclass(frozen=True)
class Answered(Generic[A]):
    """An answer, the version that it is from, and what it had to do without, also that version."""

    engine: Engine
    answer: A
    degraded: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """A share of the users is answered by another version.

    Attributes:
        engine: that version's; None: only what was asked for is known.
    """

    version: str
    share: float
    engine: Engine | None = None

    @classmethod
    def parse(cls, text: str) -> "Split":
        """Raise ConfigError unless it is VERSION:SHARE."""
        version, _, share = text.rpartition(":")
        if not VERSION.match(version) or not _SHARE.fullmatch(share):
            raise ConfigError(f"RECSYS_SPLIT must be VERSION:SHARE, a share of the users from 0 to 1 (got {text!r})")
        return cls(version, float(share))

    def to(self, engine: Engine) -> "Split":
        """The same with the engine."""
        return replace(self, engine=engine)

    def takes(self, user_id: int) -> bool:
        """Whether a user is of the share: always the same ones, and others for another version."""
        digest = blake2b(f"{self.version}:{user_id}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") < self.share * 2**64


class Shadows:
    """Computes requests once more, by another version, a few at a time; when there are more, they are dropped.

    Attributes:
        dropped: requests that were not computed.
    """

    def __init__(self, most: int = _MOST_SHADOWS) -> None:
        self._most = most
        self._tasks: set[asyncio.Task[None]] = set()
        self.dropped = 0

    def start(self, fleet: Fleet, state: State, work: Callable[[], Awaitable[None]]) -> None:
        """Begin, unless as many as may be are at work."""
        if len(self._tasks) >= self._most:
            self.dropped += 1
            return

        async def held() -> None:
            with fleet.hold(state), listening(None):  # what the request spent is told without it
                try:
                    await work()
                except RecsysError as error:  # that version's own answer, which nobody waits for
                    _LOG.info("shadow refused", error=type(error).__name__, detail=str(error))
                except Exception as error:  # noqa: BLE001 - it must never reach who was answered
                    _LOG.error("shadow failed", exc_info=error)

        task = asyncio.get_running_loop().create_task(held())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait for those at work."""
        while self._tasks:
            await asyncio.gather(*self._tasks)


class Traffic:
    """One request's: asks the version that its user gets, and tells of the answer."""

    def __init__(self, request: Request, state: State) -> None:
        self._request, self._state = request, state
        self._metrics: Metrics = request.app.state.metrics
        self.later: Callable[[], Awaitable[None]] | None = None

    async def answer(
        self, kind: Kind, users: Sequence[int | None], ask: Callable[[Engine, datetime], Awaitable[A]],
        items: Callable[[A], Sequence[tuple[int, float]]],
    ) -> "Answered[A]":  # fmt: skip
        """Answer a request.

        Args:
            kind: what its items are.
            users: whom it is for; None: nobody known.
            ask: makes the answer by a version, as of a moment.
            items: ids and scores of an answer, best first.

        Raises:
            What `ask` raises.
        """
        state, now = self._state, self._state.now()
        engine, arm = choose(state, users)
        answer = await ask(engine, now)
        degraded = (*(state.degraded if engine is state.engine else ()), *answer.degraded)
        say(self._request, engine.version, degraded)
        shown = items(answer)
        self._metrics.answered(kind, engine.version, [score for _, score in shown], answer.features_age_s)
        tell(state, kind, users, answer, shown, engine, arm, now, degraded)
        shadow = state.shadow
        if shadow is not None and shadow is not engine:

            async def once_more() -> None:
                said = await ask(shadow, now)
                tell(state, kind, users, said, items(said), shadow, "shadow", now, said.degraded)

            self.later = once_more
        return Answered(engine, answer, degraded)


def choose(state: State, users: Sequence[int | None]) -> tuple[Engine, Arm]:
    """The version that answers a user, or a group by its first one, and which arm of a split they are in.

    Only users whom both versions know take part in a split: the others cannot be answered by either.
    """
    live, split = state.require(), state.split
    if split is None or split.engine is None:
        return live, "live"
    known = [user for user in users if user is not None]
    if not known or any(len(engine.homes.nodes(known)) < len(users) for engine in (live, split.engine)):
        return live, "outside"
    return (split.engine, "split") if split.takes(known[0]) else (live, "live")


def tell(
    state: State, kind: Kind, users: Sequence[int | None], answer: Answer, shown: Sequence[tuple[int, float]],
    engine: Engine, arm: Arm, now: datetime, degraded: tuple[str, ...],
) -> None:  # fmt: skip
    """Note what was shown, where that is kept."""
    if state.impressions is not None:
        state.impressions.offer(
            Impression(
                request_id.get(),
                now,
                kind,
                tuple(users),
                tuple(shown),
                engine.version,
                arm,
                answer.city_id,
                degraded,
            )
        )


async def _traffic(request: Request, state: Live) -> AsyncIterator[Traffic]:
    traffic = Traffic(request, state)
    yield traffic
    if traffic.later is not None:  # the answer is out
        shadows: Shadows = request.app.state.shadows
        shadows.start(request.app.state.fleet, state, traffic.later)


Asked = Annotated[Traffic, Depends(_traffic)]
