"""The OpenAPI document: what FastAPI makes of routes and schemas, exact, and with an example of every answer.

`make openapi` writes it to `docs/openapi.json`.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

EXAMPLES: Final = Path(__file__).with_name("examples.json")  # recorded by `python -m tests.examples`
_BOUNDS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_RETRY: Final = {
    "description": "seconds, after which it may be tried again",
    "schema": {"type": "integer", "minimum": 0},
}
_REQUEST_ID: Final = {"description": "finds the request in the log", "schema": {"type": "string"}}


def document(schema: dict[str, Any]) -> dict[str, Any]:
    """Complete an OpenAPI document in place.

    Args:
        schema: what FastAPI made, its error answers with their content type.
    """
    for part in _schemas(schema):
        if part.get("type") == "integer":  # FastAPI writes bounds as floats, of which the largest are not exact
            part |= {bound: int(part[bound]) for bound in _BOUNDS if bound in part}
    recorded = json.loads(EXAMPLES.read_text(encoding="utf-8"))
    for methods in schema["paths"].values():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                _complete(answer, status, recorded.get(operation["operationId"] if status == "200" else status))
    return schema


def _complete(answer: dict[str, Any], status: str, example: Any) -> None:
    answer.setdefault("headers", {})["X-Request-ID"] = _REQUEST_ID
    if status in ("429", "503"):
        answer["headers"]["Retry-After"] = _RETRY
    for kind, content in answer.get("content", {}).items():
        if example is not None and kind.endswith("json"):
            content["example"] = example


def _schemas(part: Any) -> Iterator[dict[str, Any]]:
    """Every object within a document."""
    if isinstance(part, dict):
        yield part
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _schemas(inner)


if __name__ == "__main__":  # python -m api.document FILE
    from api.app import create_app
    from recsys.settings import Settings

    text = json.dumps(create_app(Settings()).openapi(), indent=2, ensure_ascii=False)
    Path(sys.argv[1]).write_text(text + "\n", encoding="utf-8")
