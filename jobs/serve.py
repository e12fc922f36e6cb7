"""The API, until Ctrl-C; what this job started, it stops."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

from api.app import configure_logs, create_app
from api.follow import Follower
from api.server import BACKLOG, Server, config, loop_factory
from jobs.report import Report
from jobs.services import ensure
from jobs.workers import supervise
from recsys import services
from recsys.errors import ConfigError
from recsys.settings import Settings


def run(settings: Settings, report: Report, *, workers: int = 1, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve what is published, and follow what is published later.

    Args:
        settings: host, port and where things are.
        report: gets the address.
        workers: how many processes answer; each loads the versions itself.
        on_ready: called with the base URL once requests are answered.

    Raises:
        ConfigError: the port is in use, or what RECSYS_SPLIT or RECSYS_SHADOW asks for cannot be.
        RecsysError: neither the live version nor the one before can be loaded, or the online store cannot be started.
    """
    configure_logs()
    base = f"http://{settings.host}:{settings.port}"
    try:
        listener = socket.create_server((settings.host, settings.port), backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"RECSYS_PORT must be free on {settings.host} (got {settings.port}: {error.strerror})"
        ) from error

    def announce() -> None:
        report.console.print(
            f"serving at [link]{base}[/] · {base}/console · {base}/docs · {base}/ready · stop with Ctrl-C"
        )
        if on_ready is not None:
            on_ready(base)

    with listener, online_store(settings), contextlib.suppress(KeyboardInterrupt):
        if workers > 1:
            supervise(settings, listener, workers, announce)
        else:
            serve(settings, listener, announce)
    report.update(served=base, workers=workers)


def serve(
    settings: Settings,
    listener: socket.socket,
    announce: Callable[[], None],
    *,
    since_ns: int | None = None,
    worker: int | None = None,
) -> None:
    """Answer in this process until a signal.

    Args:
        settings: where things are.
        listener: bound.
        announce: called once requests are answered.
        since_ns: when the service started, by `time.monotonic_ns`; default: now.
        worker: which of several, whose Ctrl-C is for the process that started them; None: the only one.
    """

    async def answer() -> None:
        # here, not in the lifespan: an error keeps its type
        app = create_app(settings, ready=await Follower.open(settings, since_ns=since_ns), worker=worker)
        await Server(config(app, settings), announce, deaf=worker is not None).serve(sockets=[listener])

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(answer())  # uvicorn finishes its requests, then raises the signal again


@contextlib.contextmanager
def online_store(settings: Settings) -> Iterator[None]:
    """The online store, up; stopped at the end if it was started here, on SIGTERM as on Ctrl-C."""
    with sigterm_unwinds():
        store = ensure(settings)
        try:
            yield
        finally:
            if store.started:
                services.stop(settings.redis_url, settings.redis)


@contextlib.contextmanager
def sigterm_unwinds() -> Iterator[None]:
    """End by unwinding, not at once: an orphaned server would stay."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def unwind(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
