"""The OpenAPI document: the file is the code's, says something of everything, and the API does what it says."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, settings

from api.app import create_app
from api.document import EXAMPLES
from recsys.settings import Settings
from tests.conftest import ROOT
from tests.examples import WRONG, record
from tests.fuzz import Asked, document, make_state, served_here

GENERATED = 25  # of each operation, beside those at the bounds of each field
schema = document(fixed=True)


@pytest.fixture(scope="module")
def openapi() -> dict:
    return create_app(Settings()).openapi()


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    made = Asked(tmp_path_factory.mktemp("fuzz"))
    yield made
    for operation in {operation for operation, _ in made.statuses}:
        assert made.statuses[operation, 200], f"{operation} was never answered: what was generated tries nothing"


@schema.parametrize()
@settings(max_examples=GENERATED, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_operation_answers_as_the_document_says(case, asked: Asked):
    asked.check(case)


def test_the_file_is_the_codes(openapi: dict):
    written = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
    assert written == openapi, "`make openapi` writes it again"


def test_everything_is_described(openapi: dict):
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], f"{method} {path}"
            for parameter in operation.get("parameters", ()):
                assert parameter["description"], f"{method} {path}: {parameter['name']}"
    for name, part in openapi["components"]["schemas"].items():
        assert part["description"], name
        for field, about in part["properties"].items():
            assert about.get("description"), f"{name}.{field}"


def fits(openapi: dict, operation: str, status: str, answer: object) -> None:
    """Raise unless an answer is what the document says of it, with every field and no other."""
    (said,) = [o for methods in openapi["paths"].values() for o in methods.values() if o["operationId"] == operation]
    (content,) = [c for kind, c in said["responses"][status]["content"].items() if kind.endswith("json")]
    jsonschema.validate(answer, {**content["schema"], "components": openapi["components"]})
    fields = openapi["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]["properties"]
    assert set(answer) == set(fields), operation
    assert content["example"].keys() == answer.keys()


def test_every_answer_has_an_example_that_is_one(openapi: dict):
    recorded = json.loads(EXAMPLES.read_text(encoding="utf-8"))
    operations = {o["operationId"] for methods in openapi["paths"].values() for o in methods.values()}
    assert set(recorded) == operations | set(WRONG), "`python -m tests.examples` records them again"
    for name, answer in recorded.items():
        if name in WRONG:
            fits(openapi, "places", name, answer)
        else:
            fits(openapi, name, "200", answer)
    assert recorded["places"]["recommendations"][0]["explanations"]
    assert recorded["blocks"]["blocks"]


def test_every_example_of_a_request_is_answered(openapi: dict, tmp_path: Path):
    with (
        served_here(create_app(Settings(), ready=make_state(tmp_path))) as base,
        httpx.Client(base_url=base, timeout=30) as client,
    ):
        for name, answer in record(client, openapi).items():
            fits(openapi, "places" if name in WRONG else name, name if name in WRONG else "200", answer)


def test_bounds_of_whole_numbers_are_whole(openapi: dict):
    """As floats, the largest id that is allowed would read as one that is not."""
    (number, _) = openapi["components"]["schemas"]["EventIn"]["properties"]["user_id"]["oneOf"]
    assert number == {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**63}
    assert isinstance(number["exclusiveMaximum"], int)
