"""Several processes answer on one socket: started together, started again when one dies, stopped together."""

import contextlib
import multiprocessing
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final

import structlog

from recsys.errors import RecsysError, ServiceError
from recsys.settings import Settings

_GRACE_S: Final = 20.0  # to finish requests, and write what was shown, before a worker is killed
_PAUSE_S: Final = 0.5  # before a worker that died at once is started again; twice as long each time
_LONGEST_PAUSE_S: Final = 10.0
_LOG = structlog.get_logger("serve")
_SPAWN: Final = multiprocessing.get_context("spawn")  # torch and gRPC do not live through a fork


@dataclass
class _Worker:
    """The `number`th process. `said` gets True when it answers, or why it cannot; when `alive` closes, it stops."""

    number: int
    process: BaseProcess
    said: Connection
    alive: Connection
    began: float = field(default_factory=time.monotonic)


def supervise(settings: Settings, listener: socket.socket, workers: int, on_ready: Callable[[], None]) -> None:
    """Keep so many workers answering, until SIGINT or SIGTERM; then let them finish their requests.

    Args:
        settings: as for one process.
        listener: bound; the workers take connections from it.
        workers: how many.
        on_ready: called once, when all of them answer.

    Raises:
        RecsysError: a worker could not be started at all, the first time.
    """
    since_ns = time.monotonic_ns()  # so that a clock that goes on from a moment is the same in all of them
    alive: list[_Worker] = []

    def start(number: int) -> _Worker:
        said, says = _SPAWN.Pipe(duplex=False)
        lives, holds = _SPAWN.Pipe(duplex=False)
        process = _SPAWN.Process(
            target=_work, args=(settings, listener, number, since_ns, says, lives), name="recsys-worker"
        )
        process.start()
        says.close()
        lives.close()
        return _Worker(number, process, said, holds)

    try:
        alive += [start(number) for number in range(1, workers + 1)]
        for worker in alive:
            if (error := _heard(worker)) is not None:
                raise error
        on_ready()
        pause_s = _PAUSE_S
        while True:
            wait([worker.process.sentinel for worker in alive])
            for worker in [w for w in alive if not w.process.is_alive()]:
                alive.remove(worker)
                _LOG.error("a worker died and is started again", pid=worker.process.pid, code=worker.process.exitcode)
                _close(worker)
                pause_s = _PAUSE_S if time.monotonic() - worker.began > 60 else min(2 * pause_s, _LONGEST_PAUSE_S)
                time.sleep(pause_s)
                alive.append(start(worker.number))
    finally:
        _stop(alive)


def _heard(worker: _Worker) -> RecsysError | None:
    """What a worker says when it has started; None: it answers."""
    try:
        said = worker.said.recv()
    except EOFError:
        worker.process.join()
        return ServiceError(f"a worker ended before it answered (got exit code {worker.process.exitcode})")
    return said if isinstance(said, RecsysError) else None


def _stop(workers: list[_Worker]) -> None:
    for worker in workers:
        if worker.process.is_alive():
            worker.process.terminate()
    deadline = time.monotonic() + _GRACE_S
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        _close(worker)


def _close(worker: _Worker) -> None:
    worker.said.close()
    worker.alive.close()
    worker.process.close()


def _work(
    settings: Settings, listener: socket.socket, number: int, since_ns: int, says: Connection, lives: Connection
) -> None:
    """A worker, in its own process."""
    from api.app import configure_logs
    from jobs.serve import serve, sigterm_unwinds

    def end_with_parent() -> None:
        with contextlib.suppress(EOFError, OSError):
            lives.recv()
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes: the parent passes it on
    threading.Thread(target=end_with_parent, daemon=True).start()
    configure_logs()
    try:
        with sigterm_unwinds():  # also while versions are being loaded
            serve(settings, listener, lambda: says.send(True), since_ns=since_ns, worker=number)
    except RecsysError as error:
        with contextlib.suppress(OSError):  # a parent that is past the start does not listen
            says.send(error)
        raise SystemExit(1) from error
