"""Many more generated requests than every run of the tests sends: FUZZ_EXAMPLES of each operation, others each time."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.fuzz import Asked, document

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "500"))
schema = document(fixed=False)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    made = Asked(tmp_path_factory.mktemp("fuzz"))
    yield made
    print()
    for (operation, status), n in sorted(made.statuses.items()):
        print(f"{operation:40} {status} {n:8,}")


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_operation_answers_as_the_document_says(case, asked: Asked):
    asked.check(case)
