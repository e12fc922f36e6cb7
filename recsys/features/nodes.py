"""Several servers asked at once: commands are sent to all of them before any reply is read."""

import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from recsys.aggregates.states import Ints
from recsys.breaker import Breaker
from recsys.errors import FeatureStoreUnavailable
from recsys.features.wire import Call, Deadline, Wire

_READY_S: Final = 0.005  # to read what lies there already, after a deadline


@dataclass
class Node:
    """One server of the cluster.

    Attributes:
        failed: whether it did not answer when it was asked last.
    """

    host: str
    port: int
    wire: Wire
    breaker: Breaker
    failed: bool = False

    @property
    def name(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"


@dataclass
class Part:
    """What one node is asked, for which rows of a request, and how it went.

    Attributes:
        asking: whether the node is only about to own the keys.
        answers: its replies; empty where there is an `error`.
    """

    node: Node
    rows: Ints
    asking: bool = False
    probe: bool = False
    answers: list[Any] = field(default_factory=list)
    error: Exception | None = None


def side_by_side(parts: Sequence[Part], of: Callable[[Part], tuple[bytes, int]], deadline: Deadline) -> None:
    """Send to every node, then read from whichever has answered, until all have or time is up."""
    waiting: dict[int, tuple[Part, Call]] = {}
    poll = select.poll()
    for part in sorted(parts, key=lambda part: part.node.failed):  # a frozen node must not keep the others waiting
        if not _left_ms(deadline):
            part.error = redis.TimeoutError("no time was left to ask")  # which says nothing of the node
            continue
        try:
            part.probe = part.node.breaker.admit()
            call = part.node.wire.send(*of(part), deadline)
        except FeatureStoreUnavailable as error:
            part.error = error
        except redis.RedisError as error:
            _failed(part, error)
        else:
            waiting[call.fileno()] = part, call
            poll.register(call, select.POLLIN)
    while waiting and (ready := poll.poll(_left_ms(deadline))):
        for number, _ in ready:
            part, call = waiting[number]
            try:
                if not call.receive(deadline, _READY_S):
                    continue
            except redis.RedisError as error:
                _failed(part, error)
            else:
                part.answers, part.node.failed = call.answers, False
                part.node.breaker.succeeded()
            poll.unregister(number)
            del waiting[number]
    for part, call in waiting.values():
        call.give_up()
        _failed(part, deadline.missed())


def _failed(part: Part, error: redis.RedisError) -> None:
    part.node.breaker.failed(part.probe)
    part.node.failed, part.error = True, error


def _left_ms(deadline: Deadline) -> float:
    try:
        return deadline.left() * 1e3
    except TimeoutError:
        return 0.0
