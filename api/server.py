"""The HTTP server, for one process and for several: uvicorn, with bounds on heads, on slow clients and on the end."""

import asyncio
import gc
import signal
import socket
import uuid
from asyncio.events import TimerHandle
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from types import FrameType
from typing import Any, Final, Literal

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.loops.auto import auto_loop_factory
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.errors import problem
from api.middleware import LATE, request_id
from recsys.settings import Settings

BACKLOG: Final = 2048  # connections that the kernel holds until they are taken
MAX_HEAD_BYTES: Final = 16 * 1024
_GRACE_S: Final = 10  # to finish requests, after a signal
_LINGER_S: Final = 2.0  # for a refusal to be read by who still sends
_LOG = structlog.get_logger("access")


def config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How requests are taken.

    Args:
        app: answers.
        settings: address and deadlines.
    """
    return uvicorn.Config(
        app,
        http=partial(Connection, deadline_s=settings.request_timeout_s),  # type: ignore[arg-type]  # it is only called
        host=settings.host,
        port=settings.port,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=_GRACE_S,
    )


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Of the loop that it runs on: uvloop, where there is one."""
    return auto_loop_factory()


class Server(uvicorn.Server):
    """Uvicorn, saying when it answers.

    Args:
        config: see `config`.
        announce: called once requests are answered.
        deaf: to Ctrl-C.
    """

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None], *, deaf: bool) -> None:
        super().__init__(config)
        self._announce, self._deaf = announce, deaf

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            # half a million objects that stay: a search for garbage among them stops every answer for .3 s
            gc.collect()
            gc.freeze()
            self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, at a signal."""
        if not (self._deaf and sig == signal.SIGINT):
            super().handle_exit(sig, frame)


class Connection(HttpToolsProtocol):
    """One connection. What uvicorn leaves open: how large a head may be, and how long a request may take to arrive.

    A request must be here whole `deadline_s` after its first byte, and that so long after the connection was made.
    What cannot become a request is answered here, in the shape of all errors; a body that is late, by `BodyLimit`.
    """

    def __init__(self, *args: Any, deadline_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline_s = deadline_s
        self._timer: TimerHandle | None = None
        self._arriving: Literal["head", "body"] | None = None
        self._begun = self._head_bytes = self._unended_bytes = 0
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        if self._refused:
            return
        before, begun = self._arriving, self._begun
        super().data_received(data)
        if self._refused or self.transport.is_closing():
            return
        one_head = before != "body" and self._begun - begun == (before is None)
        if self._arriving == "head" and one_head:  # all of it: the parser tells nothing of a header without an end
            self._unended_bytes += len(data)
            if self._unended_bytes > MAX_HEAD_BYTES:
                self._too_large()
                return
        if self._arriving is None and self._answering():
            self._stop()
        elif self._timer is None:
            self._start()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._begun += 1
        self._arriving, self._head_bytes, self._unended_bytes = "head", 0, 0

    def on_url(self, url: bytes) -> None:
        """Its address."""
        super().on_url(url)
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its headers."""
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value) + len(": \r\n")

    def on_headers_complete(self) -> None:
        """Its head is there: answer it, unless it is too large."""
        if self._refused:
            return
        if self._head_bytes > MAX_HEAD_BYTES:
            self._too_large()
            return
        self._arriving = "body"
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Some of its body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """All of it is there."""
        if self._refused:
            return
        self._arriving = None
        super().on_message_complete()
        if not self._answering():  # answered before it was whole: the wait for the next one begins now
            self._stop()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own words
        """Answer what is no HTTP."""
        self._refuse(400, "this is no HTTP request")

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start(self) -> None:
        self._timer = self.loop.call_later(self._deadline_s, self._late)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self._answering():
            if self._arriving == "body" and not self.pipeline:
                self.scope["state"][LATE] = True
                self.cycle.keep_alive = False
                self.cycle.message_event.set()
            else:
                self._start()  # the next request waits for us
        elif self._arriving == "head":
            self._refuse(408, "the request did not arrive in time")
        else:
            self.transport.close()

    def _too_large(self) -> None:
        self._refuse(431, f"address and headers must be at most {MAX_HEAD_BYTES} bytes")

    def _refuse(self, status: int, detail: str) -> None:
        """Answer and close; who still sends may read the answer first."""
        self._refused = True
        if self._answering():  # its answer cannot come after this one
            self.transport.close()
            return
        token = request_id.set(uuid.uuid4().hex)
        try:
            answer = problem(status, detail, headers={"Connection": "close", "X-Request-ID": request_id.get()})
            _LOG.info("refused", status=status, detail=detail)
        finally:
            request_id.reset(token)
        head = b"".join(b"%s: %s\r\n" % header for header in answer.raw_headers)
        line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
        self.transport.write(line + head + b"\r\n" + bytes(answer.body))
        self._stop()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._timer = self.loop.call_later(_LINGER_S, self.transport.close)
        else:
            self.transport.close()
