"""Where the time of a request goes: a name around each step, heard by whoever listens, free where nobody does.

Who answers a request listens with `listening`; what it calls says `@stage("score")`, or `with stage("score"):`, and
knows nothing of who hears it. Threads that a request hands work to in its own context are heard too. A stage within a
stage is part of the outer one.
"""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, Token
from functools import wraps
from inspect import iscoroutinefunction
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, TypeVar, cast, get_args

Name = Literal["user", "retrieve", "features", "score", "policy", "profiles", "explain"]
STAGES: Final[tuple[Name, ...]] = get_args(Name)
P = ParamSpec("P")
R = TypeVar("R")


class Stages:
    """What is heard of one request.

    Attributes:
        spent: name and seconds of each time that a stage was passed through; may be appended to by several threads.

    Args:
        around: called with a stage's name, makes what is entered and left with it; None: nothing is.
    """

    __slots__ = ("_around", "spent")

    def __init__(self, around: Callable[[str], AbstractContextManager[Any]] | None = None) -> None:
        self._around = around
        self.spent: list[tuple[str, float]] = []

    def around(self, name: str) -> AbstractContextManager[Any] | None:
        """What goes around a stage."""
        return None if self._around is None else self._around(name)

    def seconds(self) -> dict[str, float]:
        """Seconds by stage, all times that it was passed through together."""
        out: dict[str, float] = {}
        for name, seconds in self.spent:
            out[name] = out.get(name, 0.0) + seconds
        return out


_HEARD: ContextVar[Stages | None] = ContextVar("stages", default=None)


@contextmanager
def listening(stages: Stages | None) -> Iterator[None]:
    """Hear the stages of what runs meanwhile, and of what it starts; None: nobody does."""
    token = _HEARD.set(stages)
    try:
        yield
    finally:
        _HEARD.reset(token)


def stage(name: Name) -> "_Stage":
    """Make what goes around a step: with a `with` statement, or as the decorator of a function, async or not."""
    return _Stage(name)


class _Stage:
    """As a context manager for one use; as a decorator for any number, at once too."""

    __slots__ = ("_around", "_name", "_stages", "_start", "_token")
    _token: Token[Stages | None]

    def __init__(self, name: Name) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._stages = _HEARD.get()
        if self._stages is None:
            return
        self._token = _HEARD.set(None)
        if (around := self._stages.around(self._name)) is not None:
            around.__enter__()
        self._around = around
        self._start = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stages is None:
            return
        self._stages.spent.append((self._name, time.perf_counter() - self._start))
        if self._around is not None:
            self._around.__exit__(kind, error, trace)
        _HEARD.reset(self._token)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        name = self._name
        if iscoroutinefunction(function):
            asked = cast(Callable[P, Awaitable[Any]], function)

            @wraps(function)
            async def waited(*args: P.args, **kwargs: P.kwargs) -> Any:
                with _Stage(name):
                    return await asked(*args, **kwargs)

            return cast(Callable[P, R], waited)

        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            if _HEARD.get() is None:
                return function(*args, **kwargs)
            with _Stage(name):
                return function(*args, **kwargs)

        return called
