"""A Redis Cluster behind the same few methods as one server (`recsys.features.wire`).

Commands go to the nodes that own their keys, to all of them before any reply is read: one round trip, whatever the
number of nodes. A node that does not answer costs the commands that were for it; a circuit breaker of its own keeps
later ones from waiting for it. Who owns what is asked again when a node fails or refers to another one.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import redis

from recsys.address import Address
from recsys.aggregates.finish import Bools
from recsys.aggregates.states import Ints
from recsys.breaker import Breaker
from recsys.errors import FeatureStoreUnavailable
from recsys.features.nodes import Node, Part, side_by_side
from recsys.features.slots import SLOTS, command_slots
from recsys.features.wire import JOB_TIMEOUT_S, Commands, Deadline, Wire, command, raised
from recsys.turn import TURN

_AGAIN_S: Final = 0.1  # who owns what is not asked more often than this while nodes fail
_TOPOLOGY: Final = command(b"CLUSTER", b"SLOTS").data
_PING: Final = command(b"PING").data
_ASKING: Final = command(b"ASKING").data
_NOBODY: Final = -1
# by which a node says that it does not answer for a key now
_REFUSED: Final = ("CLUSTERDOWN ", "LOADING ", "MASTERDOWN ", "TRYAGAIN ")


@dataclass(frozen=True)
class Topology:
    """Who owns what.

    Attributes:
        nodes: the primaries.
        owner: (16,384,) position of a slot's node; -1: nobody owns it.
    """

    nodes: tuple[Node, ...] = ()
    owner: npt.NDArray[np.int16] = field(default_factory=lambda: np.full(SLOTS, _NOBODY, dtype=np.int16))


class ClusterWire:
    """Connections to all primaries, for use from several threads.

    Args:
        address: some of the nodes.
        connect: a client of one node, by its URL.
        timeout_s: deadline of one round trip to all of them, following references included; None for jobs.
    """

    def __init__(self, address: Address, connect: Callable[[str], redis.Redis], timeout_s: float | None) -> None:
        self._address, self._connect = address, connect
        self._timeout_s = timeout_s or JOB_TIMEOUT_S
        self._nodes: dict[str, Node] = {}
        self._named = [self._node(*at) for at in address.nodes]
        self._topology, self._stale, self._asked_at = Topology(), True, -math.inf
        self._refreshing = threading.Lock()

    def ask(self, commands: Commands, within_s: float = math.inf) -> list[Any]:
        """Send commands, each to the node of its key, and wait for all replies; see `Wire.ask`.

        Raises:
            redis.RedisError: a node did not answer in time, went away, or refused a command.
        """
        answers, lost, errors = self._ask(commands, within_s)
        if lost.any():
            raise _first(errors)
        return raised(answers)

    def ask_partly(self, commands: Commands) -> tuple[list[Any], Bools | None]:
        """The same, but for the keys of nodes that do not answer.

        Returns:
            The replies in order, None where one was lost, and (N,) which were; None where none was.

        Raises:
            redis.RedisError: no node answered, or one refused a command.
        """
        answers, lost, errors = self._ask(commands, math.inf)
        if len(lost) and lost.all():
            raise _first(errors)
        return raised(answers), lost if lost.any() else None

    @TURN.given_up()
    def silent(self) -> list[str]:
        """Primaries that do not answer now, by host and port.

        Raises:
            redis.RedisError: none does.
        """
        deadline = Deadline(self._timeout_s)
        parts = [Part(node, np.arange(1)) for node in self._current(deadline).nodes]
        side_by_side(parts, lambda _: (_PING, 1), deadline)
        errors = {part.node.name: part.error for part in parts if part.error is not None}
        self._stale |= bool(errors)
        if len(errors) == len(parts):
            raise _first(errors)
        return list(errors)

    @TURN.given_up()
    def nodes(self) -> list[Wire]:
        """Of all servers that hold keys."""
        return [node.wire for node in self._current(Deadline(self._timeout_s)).nodes]

    def close(self) -> None:
        """Close every idle connection."""
        for node in list(self._nodes.values()):
            node.wire.close()

    # ------------------------------------------------------------------------------------------------------ one request
    @TURN.given_up()
    def _ask(self, commands: Commands, within_s: float) -> tuple[list[Any], Bools, dict[str, Exception]]:
        """Replies, which were lost, and why by node."""
        n = commands.replies
        answers: list[Any] = [None] * n
        if not n:
            return answers, np.zeros(0, dtype=bool), {}
        deadline = Deadline(min(self._timeout_s, within_s))
        topology = self._current(deadline)
        begins, ends, slots = command_slots(commands)
        cut = memoryview(commands.data)

        def of(part: Part) -> tuple[bytes, int]:
            first, last = begins[part.rows].tolist(), ends[part.rows].tolist()
            each = [cut[begin:end] for begin, end in zip(first, last, strict=True)]
            return (_ASKING.join([b"", *each]), 2 * len(each)) if part.asking else (b"".join(each), len(each))

        errors: dict[str, Exception] = {}
        parts, lost = _by_owner(topology, np.arange(n), slots)
        side_by_side(parts, of, deadline)
        elsewhere, asked, gone = self._keep(parts, answers, errors)
        lost[[*elsewhere, *gone]] = True
        parts = [Part(self._node(*at), np.array(rows), asking=True) for at, rows in asked.items()]
        if lost.any():
            now = self._again(topology, deadline, at_once=bool(elsewhere))
            rows = np.flatnonzero(lost) if now is not topology else np.array(elsewhere, dtype=np.int64)
            parts += [part for part in _by_owner(now, rows, slots)[0] if part.node.name not in errors]
        if parts:
            for part in parts:
                lost[part.rows] = False
            side_by_side(parts, of, deadline)
            still, again, gone = self._keep(parts, answers, errors)
            lost[[*still, *gone, *chain.from_iterable(again.values())]] = True
        if lost.any() and not errors:
            errors[""] = redis.ConnectionError("no node answers for some of the keys")
        for row in np.flatnonzero(lost).tolist():
            answers[row] = None
        return answers, lost, errors

    def _keep(
        self, parts: Sequence[Part], answers: list[Any], errors: dict[str, Exception]
    ) -> tuple[list[int], dict[tuple[str, int], list[int]], list[int]]:
        """Note the replies; which rows are another node's now, which are to be asked for at which, which are lost."""
        elsewhere: list[int] = []
        asked: dict[tuple[str, int], list[int]] = {}
        lost: list[int] = []
        for part in parts:
            rows = part.rows.tolist()
            if part.error is not None:
                errors[part.node.name] = part.error
                lost += rows
                continue
            for row, answer in zip(rows, part.answers[1::2] if part.asking else part.answers, strict=True):
                answers[row] = answer
                if not isinstance(answer, Exception):
                    continue
                said = str(answer)
                if said.startswith("MOVED "):
                    elsewhere.append(row)
                elif said.startswith("ASK "):
                    host, _, port = said.split()[2].rpartition(":")
                    asked.setdefault((host or part.node.host, int(port)), []).append(row)
                elif said.startswith(_REFUSED):
                    errors[part.node.name] = redis.ConnectionError(said)
                    lost.append(row)
        self._stale |= bool(elsewhere or lost)
        return elsewhere, asked, lost

    # --------------------------------------------------------------------------------------------------- who owns what
    def _current(self, deadline: Deadline) -> Topology:
        """As it was found last, or asked for again where that may not hold any more.

        Raises:
            redis.ConnectionError: it was never found, and no node answers.
        """
        topology = self._topology
        if self._stale:
            topology = self._again(topology, deadline)
        if not topology.nodes:
            raise redis.ConnectionError(f"no node of the cluster at {self._address.where} says who owns what")
        return topology

    def _again(self, seen: Topology, deadline: Deadline, *, at_once: bool = False) -> Topology:
        """Ask who owns what, one thread at a time; what is known where nobody answers, or it was just asked."""
        try:
            free = self._refreshing.acquire(timeout=deadline.left())
        except TimeoutError:
            return self._topology
        if not free:
            return self._topology
        try:
            if self._topology is not seen:
                return self._topology
            if self._topology.nodes and not at_once and time.monotonic() - self._asked_at < _AGAIN_S:
                return self._topology
            self._asked_at = time.monotonic()
            known, best = list(self._topology.nodes), 0
            random.shuffle(known)
            for node in sorted([*known, *self._named], key=lambda node: (node.failed, node.breaker.status != "closed")):
                part = Part(node, np.arange(1))
                side_by_side([part], lambda _: (_TOPOLOGY, 1), deadline)
                said = [] if part.error is not None else part.answers[0]
                if isinstance(said, Exception):  # a node that is in no cluster refuses, or says nothing
                    continue
                # one that has just come does not know of everybody yet
                if (owned := sum(last - first + 1 for first, last, *_ in said)) > best:
                    self._take(node, said)
                    best = owned
                if best == SLOTS:
                    break
            return self._topology
        finally:
            self._refreshing.release()

    def _take(self, asked: Node, said: Sequence[Any]) -> None:
        nodes: dict[str, Node] = {}
        owner = np.full(SLOTS, _NOBODY, dtype=np.int16)
        for first, last, (host, port, *_), *_ in said:
            # a node that does not know its own address is the one that was asked
            node = self._node((host or b"").decode() or asked.host, port)
            nodes.setdefault(node.name, node)
            owner[first : last + 1] = list(nodes).index(node.name)
        before = self._topology
        same = [n.name for n in before.nodes] == list(nodes) and np.array_equal(before.owner, owner)
        self._stale = False
        if not same:
            self._topology = Topology(tuple(nodes.values()), owner)

    def _node(self, host: str, port: int) -> Node:
        name = f"{host}:{port}"
        if name not in self._nodes:
            wire = Wire(self._connect(self._address.node(host, port)), self._timeout_s)
            breaker = Breaker(f"the node {name} of the online store", FeatureStoreUnavailable)
            self._nodes.setdefault(name, Node(host, port, wire, breaker))
        return self._nodes[name]


def _by_owner(topology: Topology, rows: Ints, slots: Ints) -> tuple[list[Part], Bools]:
    """Rows by the node that owns their slot, and (N,) which of all have none."""
    nobody = np.zeros(len(slots), dtype=bool)
    owner = topology.owner[slots[rows]]
    nobody[rows[owner == _NOBODY]] = True
    parts = [Part(node, rows[owner == at]) for at, node in enumerate(topology.nodes)]
    return [part for part in parts if len(part.rows)], nobody


def _first(errors: dict[str, Exception]) -> redis.RedisError:
    """Which node failed, and how."""
    name, error = next(iter(errors.items()))
    return redis.ConnectionError(f"{name}: {error}" if name else str(error))
