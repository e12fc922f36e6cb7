"""Generated requests against an app in this process: what its OpenAPI document allows, and what it does not."""

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import schemathesis
import uvicorn
from fastapi import FastAPI
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.config import ChecksConfig, GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.specs.openapi import checks

from api.app import create_app
from api.state import State
from recsys.events import EventLog, Intake
from recsys.recommend.engine import Engine
from recsys.settings import Settings
from tests.contract.test_events_api import Logged
from tests.parts import N_PLACES, N_USERS, NOW, make_engine

# Not among them: that whatever the document allows is accepted. Ids, positions and cursors are of a version.
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
    checks.allow_header_conformance,
]


def document(*, fixed: bool):
    """The code's own document; of a fixed one, the same requests are generated each time."""
    refused = {"expected-statuses": [400, 404, 405, 413, 422]}
    project = ProjectConfig(
        generation=GenerationConfig(deterministic=fixed),
        checks=ChecksConfig.from_dict({"negative_data_rejection": refused}),
    )
    config = SchemathesisConfig(projects=ProjectsConfig(default=project))
    return schemathesis.openapi.from_dict(create_app(Settings()).openapi(), config=config)


def _state(engine: Engine, log: Logged) -> State:
    return State(
        engine,
        lambda: NOW,
        events=Intake(log),
        known_users=np.arange(N_USERS - 1),
        known_places=np.arange(N_PLACES),
    )


def make_state(folder: Path) -> State:
    """An app's parts: random heads, features in memory, a log that is real."""
    return _state(make_engine(folder / "index"), Logged(EventLog(folder / "log")))


@contextmanager
def served_here(app: FastAPI) -> Iterator[str]:
    """The app behind HTTP in a thread of this process, at the address that this gives."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            # What is listening takes connections before the app is up, so the first request waits, and no test has to.
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class Asked:
    """One app after another on the same parts: schemathesis ends an app's lifespan after each operation.

    Attributes:
        statuses: how often an operation answered with a status.
    """

    def __init__(self, folder: Path) -> None:
        self._engine, self._log = make_engine(folder / "index"), Logged(EventLog(folder / "log"))
        self._app: FastAPI | None = None
        self.statuses: Counter[tuple[str, int]] = Counter()

        async def stay() -> None:
            """The engine is the next app's too."""

        self._engine.index.close, self._engine.features.close = stay, lambda: None

    async def __call__(self, scope: dict[str, Any], receive, send) -> None:
        if scope["type"] == "lifespan":
            self._app = create_app(Settings(), ready=_state(self._engine, self._log))
        assert self._app is not None
        await self._app(scope, receive, send)

    def check(self, case: Case) -> None:
        """Send one request and look at the answer."""
        answer = case.call_and_validate(app=self, checks=CHECKS)
        self.statuses[case.operation.label, answer.status_code] += 1
