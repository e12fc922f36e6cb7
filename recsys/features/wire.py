"""Many Redis commands in one round trip with one deadline.

redis-py packs and parses a command at a time, which costs more than the server's own work; here whole pipelines are
bytes made with numpy, and hiredis parses the replies. redis-py still opens the connections: address, TLS, password,
database.
"""

import contextlib
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import hiredis
import redis

from recsys.aggregates.finish import Bools
from recsys.turn import TURN

_CHUNK: Final = 1 << 18
JOB_TIMEOUT_S: Final = 60.0  # a job may wait, but not for a server that will never answer


class Block(NamedTuple):
    """Commands of one length, one after the other.

    Attributes:
        n: how many.
        size: bytes of each.
        key_at, key_size: where in each its key is; size 0: it has none.
    """

    n: int
    size: int
    key_at: int
    key_size: int


@dataclass(frozen=True)
class Commands:
    """Commands in the protocol's own form (RESP), to be sent as they are; each has one reply.

    Attributes:
        data: one after the other.
        blocks: the same as runs of equal length, which say whose key each is about.
    """

    data: bytes = b""
    blocks: tuple[Block, ...] = ()

    @classmethod
    def join(cls, parts: "Iterable[Commands]") -> Self:
        """All of them, in order."""
        every = list(parts)
        return cls(b"".join(part.data for part in every), tuple(block for part in every for block in part.blocks))

    def __add__(self, other: "Commands") -> "Commands":
        return Commands(self.data + other.data, self.blocks + other.blocks)

    @property
    def replies(self) -> int:
        """How many they are."""
        return sum(block.n for block in self.blocks)


def command(name: bytes, *arguments: bytes) -> Commands:
    """One command; its first argument is its key."""
    parts = (name, *arguments)
    data = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
    if not arguments:
        return Commands(data, (Block(1, len(data), 0, 0),))
    key = arguments[0]
    before = len(b"*%d\r\n$%d\r\n%b\r\n$%d\r\n" % (len(parts), len(name), name, len(key)))
    return Commands(data, (Block(1, len(data), before, len(key)),))


class Deadline:
    """Of one round trip.

    Attributes:
        timeout_s: how long it was at first.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s, self._end = timeout_s, time.monotonic() + timeout_s

    def left(self, least_s: float = 0.0) -> float:
        """Seconds, or what is granted at least; `TimeoutError` where there are none."""
        left = max(self._end - time.monotonic(), least_s)
        if left <= 0:
            raise TimeoutError
        return left

    def missed(self) -> redis.TimeoutError:
        """The error of who did not keep it."""
        return redis.TimeoutError(f"no answer within {self.timeout_s * 1e3:.0f} ms")


class Wire:
    """Connections to one server, for use from several threads.

    Args:
        client: knows the address; its connections neither retry nor wait longer than `timeout_s`.
        timeout_s: deadline of one round trip, connecting included; None for jobs.
    """

    def __init__(self, client: redis.Redis, timeout_s: float | None) -> None:
        self._pool = client.connection_pool
        self._timeout_s = timeout_s or JOB_TIMEOUT_S
        self._idle: deque[Any] = deque()

    def ask(self, commands: Commands, within_s: float = math.inf) -> list[Any]:
        """Send commands and wait for their replies.

        Args:
            commands: what to send.
            within_s: a sooner deadline than that of the connection's round trips.

        Returns:
            The replies in order: bytes, int, list or None.

        Raises:
            redis.RedisError: the server did not answer in time, went away, or refused a command.
        """
        if not commands.replies:
            return []
        deadline = Deadline(min(self._timeout_s, within_s))
        with TURN.given_up():
            call = self.send(commands.data, commands.replies, deadline)
            while not call.receive(deadline):
                pass
        return raised(call.answers)

    def ask_partly(self, commands: Commands) -> tuple[list[Any], Bools | None]:
        """The same; a server answers all or nothing: there is never a reply that was lost."""
        return self.ask(commands), None

    def silent(self) -> list[str]:
        """Nodes that do not answer: the only one raises."""
        self.ask(command(b"PING"))
        return []

    def nodes(self) -> "list[Wire]":
        """Of all servers that hold keys: this one."""
        return [self]

    def send(self, data: bytes, replies: int, deadline: Deadline) -> "Call":
        """Send commands; `Call.receive` waits for their replies.

        Raises:
            redis.RedisError: they could not be sent in time.
        """
        call = Call(self, self._spare() or self._pool.make_connection())
        call.send(data, replies, deadline)
        return call

    def spare(self, connection: Any) -> None:
        """Take back a connection on which nothing is under way."""
        self._idle.append(connection)

    def close(self) -> None:
        """Close every idle connection."""
        while (connection := self._spare()) is not None:
            connection.disconnect()

    def _spare(self) -> Any:
        """An idle connection, if there is one: another thread may take the last."""
        try:
            return self._idle.pop()
        except IndexError:
            return None


class Call:
    """Commands under way on a connection, which is closed where they fail.

    Attributes:
        answers: once all are there.
    """

    def __init__(self, wire: Wire, connection: Any) -> None:
        self._wire, self._connection = wire, connection
        self._reader = hiredis.Reader()
        self.answers: list[Any] = []

    def send(self, data: bytes, replies: int, deadline: Deadline) -> None:
        """Connect, where that is still to do, and send."""
        with self._or_given_up(deadline):
            if self._connection._sock is None:
                self._connection.connect()
            self._socket = self._connection._sock
            self._socket.settimeout(deadline.left())
            self._socket.sendall(data)
            self._reader.feed(b"*%d\r\n" % replies)  # read as one array: hiredis does not come back for each of them

    def fileno(self) -> int:
        """Of the socket, which is ready to read when more is there."""
        number: int = self._socket.fileno()
        return number

    def receive(self, deadline: Deadline, least_s: float = 0.0) -> bool:
        """Read what is there, or wait for some; whether that was all.

        Args:
            deadline: of the round trip.
            least_s: how long to wait even when that is over, since something is there.

        Raises:
            redis.RedisError: nothing came in time, or the server went away.
        """
        with self._or_given_up(deadline):
            self._socket.settimeout(deadline.left(least_s))
            self._read()
            while (pending := getattr(self._socket, "pending", None)) is not None and pending():  # TLS has read ahead
                self._read()
            answers: Any = self._reader.gets()
        if answers is False:
            return False
        self.answers = answers
        self._wire.spare(self._connection)
        return True

    def give_up(self) -> None:
        """Close the connection: replies may still be under way, and nobody must read them as theirs."""
        self._connection.disconnect()
        self._wire.close()  # the others lead to the same server, which may be another one by now

    @contextlib.contextmanager
    def _or_given_up(self, deadline: Deadline) -> Iterator[None]:
        """Errors in the words of redis-py."""
        try:
            yield
        except TimeoutError as error:
            self.give_up()
            raise deadline.missed() from error
        except OSError as error:
            self.give_up()
            raise redis.ConnectionError(str(error)) from error
        except BaseException:
            self.give_up()
            raise

    def _read(self) -> None:
        part = self._socket.recv(_CHUNK)
        if not part:
            raise ConnectionResetError("the server closed the connection")
        self._reader.feed(part)


def raised(answers: list[Any]) -> list[Any]:
    """Answers, none of which is an error; the first that is one is raised."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise redis.ResponseError(str(answer)) from answer
    return answers
