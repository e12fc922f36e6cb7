"""Many Redis commands in one round trip with one deadline.

redis-py packs and parses a command at a time, which costs more than the server's own work; here whole pipelines are
bytes made with numpy, and hiredis parses the replies. redis-py still opens the connections: address, TLS, password,
database.
"""

import math
import time
from collections import deque
from typing import Any, Final

import hiredis
import redis

_CHUNK: Final = 1 << 18
_JOB_TIMEOUT_S: Final = 60.0  # a job may wait, but not for a server that will never answer


class Wire:
    """Connections to one server, for use from several threads.

    Args:
        client: knows the address; its connections neither retry nor wait longer than `timeout_s`.
        timeout_s: deadline of one round trip, connecting included; None for jobs.
    """

    def __init__(self, client: redis.Redis, timeout_s: float | None) -> None:
        self._pool = client.connection_pool
        self._timeout_s = timeout_s or _JOB_TIMEOUT_S
        self._idle: deque[Any] = deque()

    def ask(self, commands: bytes, replies: int, within_s: float = math.inf) -> list[Any]:
        """Send commands in the protocol's own form (RESP) and wait for their replies.

        Args:
            commands: one after the other.
            replies: how many replies they have.
            within_s: a sooner deadline than that of the connection's round trips.

        Returns:
            The replies in order: bytes, int, list or None.

        Raises:
            redis.RedisError: the server did not answer in time, went away, or refused a command.
        """
        if not replies:
            return []
        timeout_s = min(self._timeout_s, within_s)
        deadline = time.monotonic() + timeout_s
        connection = self._spare() or self._pool.make_connection()
        try:
            answers = self._exchange(connection, commands, replies, deadline)
        except BaseException as error:
            connection.disconnect()  # replies may still be under way: nobody must read them as theirs
            self.close()  # the others lead to the same server, which may be another one by now
            if isinstance(error, TimeoutError):
                raise redis.TimeoutError(f"no answer within {timeout_s * 1e3:.0f} ms") from error
            if isinstance(error, OSError):
                raise redis.ConnectionError(str(error)) from error
            raise
        self._idle.append(connection)
        for answer in answers:
            if isinstance(answer, Exception):
                raise redis.ResponseError(str(answer)) from answer
        return answers

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

    def _exchange(self, connection: Any, commands: bytes, replies: int, deadline: float) -> list[Any]:
        if connection._sock is None:
            connection.connect()
        socket, reader = connection._sock, hiredis.Reader()
        socket.settimeout(self._left(deadline))
        socket.sendall(commands)
        reader.feed(b"*%d\r\n" % replies)  # read as one array, so that hiredis does not come back for each of them
        while (answers := reader.gets()) is False:
            socket.settimeout(self._left(deadline))
            part = socket.recv(_CHUNK)
            if not part:
                raise ConnectionResetError("the server closed the connection")
            reader.feed(part)
        found: list[Any] = answers
        return found

    def _left(self, deadline: float) -> float:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def command(*parts: bytes) -> bytes:
    """One command in RESP."""
    head = b"*%d\r\n" % len(parts)
    return head + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
