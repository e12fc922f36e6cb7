"""The API, until Ctrl-C; what this job started, it stops."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import uvicorn
from uvicorn.loops.auto import auto_loop_factory

from api.app import create_app
from api.state import load
from jobs.report import Report
from jobs.services import ensure
from recsys import services
from recsys.errors import ConfigError
from recsys.settings import Settings


def run(settings: Settings, report: Report, *, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve the live version.

    Args:
        settings: host, port and where things are.
        report: gets the address.
        on_ready: called with the base URL once requests are answered.

    Raises:
        ConfigError: the port is in use.
        RecsysError: the live version cannot be loaded, or the online store cannot be started.
    """
    base = f"http://{settings.host}:{settings.port}"
    try:
        listener = socket.create_server((settings.host, settings.port))
    except OSError as error:
        raise ConfigError(
            f"RECSYS_PORT must be free on {settings.host} (got {settings.port}: {error.strerror})"
        ) from error

    def announce() -> None:
        report.console.print(f"serving at [link]{base}[/] · {base}/docs · {base}/ready · stop with Ctrl-C")
        if on_ready is not None:
            on_ready(base)

    async def serve() -> None:
        app = create_app(settings, ready=await load(settings))  # here, not in the lifespan: an error keeps its type
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=10)
        await _Server(config, announce).serve(sockets=[listener])

    loop = asyncio.Runner(loop_factory=auto_loop_factory())
    # uvicorn finishes its requests, then raises the signal again
    with listener, online_store(settings), contextlib.suppress(KeyboardInterrupt), loop as runner:
        runner.run(serve())
    report["served"] = base


@contextlib.contextmanager
def online_store(settings: Settings) -> Iterator[None]:
    """The online store, up; stopped at the end if it was started here, on SIGTERM as on Ctrl-C."""
    with _sigterm_unwinds():
        store = ensure(settings)
        try:
            yield
        finally:
            if store.started:
                services.stop(settings.redis_url, settings.redis)


@contextlib.contextmanager
def _sigterm_unwinds() -> Iterator[None]:
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


class _Server(uvicorn.Server):
    """Uvicorn, saying when it answers."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, *args: Any, **kwargs: Any) -> None:
        await super().startup(*args, **kwargs)
        if self.started:
            self._announce()
