"""Examples of the OpenAPI document: its requests, sent to a small world that is served, and the answers to them.

`python -m tests.examples` records `api/examples.json` again, in about a minute; then `make openapi`.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from api.app import create_app
from api.document import EXAMPLES
from recsys.settings import Settings
from tests.conftest import ROOT, free_port
from tests.fuzz import served_here

REQUEST_ID = "1a72a6b723f343bb93aa9cb475d8d65e"
# What nobody is, and what no field may be: two of the errors that there are.
WRONG = {"404": {"user_id": 1_000_000}, "422": {"user_id": 42, "top_k": 101}}


@dataclass(frozen=True)
class Example:
    """One request of the document's examples."""

    operation: str
    method: str
    path: str
    params: Mapping[str, Any]
    body: Any

    def send(self, client: httpx.Client) -> httpx.Response:
        return client.request(
            self.method, self.path, params=self.params, json=self.body, headers={"X-Request-ID": REQUEST_ID}
        )


def requests(openapi: dict[str, Any]) -> Iterator[Example]:
    """Every operation's, with the examples of its parameters and its body; what is put before what is deleted."""
    for path, methods in openapi["paths"].items():
        for method, operation in sorted(methods.items(), key=lambda m: ("put", "get", "post", "delete").index(m[0])):
            url, params, body = path, {}, None
            for parameter in operation.get("parameters", ()):
                (given,) = parameter["schema"]["examples"]
                if parameter["in"] == "path":
                    url = url.replace(f"{{{parameter['name']}}}", given)
                else:
                    params[parameter["name"]] = given
            if "requestBody" in operation:
                reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                (body,) = openapi["components"]["schemas"][reference.rpartition("/")[2]]["examples"]
            yield Example(operation["operationId"], method, url, params, body)


def record(client: httpx.Client, openapi: dict[str, Any]) -> dict[str, Any]:
    """Answers by operation, and problems by status."""
    answers: dict[str, Any] = {}
    for example in requests(openapi):
        answer = example.send(client)
        assert answer.status_code == 200, f"{example}: {answer.text}"
        answers[example.operation] = answer.json()
    for status, body in WRONG.items():
        answer = client.post("/recommend/places", json=body, headers={"X-Request-ID": REQUEST_ID})
        assert answer.status_code == int(status), answer.text
        answers[status] = answer.json()
    return answers


def small_world(look: Callable[[httpx.Client], None]) -> None:
    """Look at an app that serves a small world, from generated tables to a published version."""
    # Seconds to import, and the tests need none of it
    from jobs import materialize, publish, train
    from recsys.services import start, stop
    from recsys.world import WorldConfig, generate
    from tests.served import quiet

    with tempfile.TemporaryDirectory() as folder:
        url = f"redis://127.0.0.1:{free_port()}/0"
        settings = Settings(
            data_dir=Path(folder), redis_url=url, feature_repo=ROOT / "feature_repo", epochs=2, online_timeout_ms=2_000,
            _env_file=None,
        )  # fmt: skip
        generate(WorldConfig(users=300, places=300), settings.lake)
        start(url, settings.redis)
        try:
            for job in (materialize, train, publish):
                job.run(settings, quiet(job.__name__.rpartition(".")[2], settings))
            with served_here(create_app(settings)) as base, httpx.Client(base_url=base, timeout=60) as client:
                look(client)
        finally:
            stop(url, settings.redis)


def _write(client: httpx.Client) -> None:
    found = record(client, client.get("/openapi.json").json())
    EXAMPLES.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    small_world(_write)
