"""The OpenAPI document: the file is the code's, says something of everything, and the API does what it says."""

import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from api.app import create_app
from recsys.settings import Settings
from tests.conftest import ROOT
from tests.fuzz import Asked, document

EXAMPLES = 25  # of each operation, beside those at the bounds of each field
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
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
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


def test_bounds_of_whole_numbers_are_whole(openapi: dict):
    """As floats, the largest id that is allowed would read as one that is not."""
    (number, _) = openapi["components"]["schemas"]["EventIn"]["properties"]["user_id"]["oneOf"]
    assert number == {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**63}
    assert isinstance(number["exclusiveMaximum"], int)
