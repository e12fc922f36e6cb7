"""The API, until Ctrl-C; what this job started, it stops."""

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from api.app import create_app
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
    """
    base = f"http://{settings.host}:{settings.port}"
    try:
        listener = socket.create_server((settings.host, settings.port))
    except OSError as error:
        raise ConfigError(
            f"RECSYS_PORT must be free on {settings.host} (got {settings.port}: {error.strerror})"
        ) from error
    store = ensure(settings)

    def announce() -> None:
        report.console.print(f"serving at [link]{base}[/] · {base}/docs · {base}/ready · stop with Ctrl-C")
        if on_ready is not None:
            on_ready(base)

    try:
        config = uvicorn.Config(create_app(settings), log_config=None, access_log=False, timeout_graceful_shutdown=10)
        server = _Server(config, announce)
        with listener, contextlib.suppress(KeyboardInterrupt):  # uvicorn shuts down, then raises the signal again
            server.run(sockets=[listener])
    finally:
        if store.started:
            services.stop(settings.redis_url, settings.redis)
    report["served"] = base


class _Server(uvicorn.Server):
    """Uvicorn, saying when it answers."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, *args: Any, **kwargs: Any) -> None:
        await super().startup(*args, **kwargs)
        if self.started:
            self._announce()
