"""`recsys.client` is what the OpenAPI document says, field by field, and works against a served app."""

import asyncio
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import httpx
import pytest

from api.app import create_app
from api.keys import make
from api.state import State
from recsys import client as package
from recsys.client import (
    ApiError,
    AsyncClient,
    Client,
    Forbidden,
    InvalidField,
    NoAnswer,
    NotFound,
    Patience,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    answers,
    asks,
    calls,
)
from recsys.client.calls import Call
from recsys.client.exchange import exchange
from recsys.settings import Settings
from tests.conftest import ROOT, free_port
from tests.fuzz import make_state, served_here
from tests.parts import NOW

OPENAPI = create_app(Settings()).openapi()
OPERATIONS = {o["operationId"]: o for methods in OPENAPI["paths"].values() for o in methods.values()}
PAGES = {"place_pages", "people_pages", "group_pages"}
ASKED = {
    "PlaceRecommendationRequest": asks.Places,
    "GroupRecommendationRequest": asks.Groups,
    "PeopleRecommendationRequest": asks.People,
    "ExplainRequest": asks.Explain,
    "EventIn": asks.Event,
    "PlaceFilters": asks.PlaceFilters,
    "PriceRange": asks.PriceRange,
    "ProfileIn": asks.Profile,
}


def plain(schema: Any, parts: Mapping[str, Any]) -> Any:
    """A schema without names and words, its references in place."""
    if isinstance(schema, list):
        return [plain(part, parts) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return plain(parts[schema["$ref"].rpartition("/")[2]], parts)
    kept = {k: v for k, v in schema.items() if k not in ("title", "description", "examples", "default")}
    if "properties" in kept:
        kept["properties"] = {name: plain(part, parts) for name, part in kept["properties"].items()}
        kept["required"] = sorted(kept.get("required", ()))
    return {k: v if k in ("properties", "required") else plain(v, parts) for k, v in kept.items()}


def theirs(operation: str, status: str = "200") -> Any:
    (content,) = [c for kind, c in OPERATIONS[operation]["responses"][status]["content"].items() if "json" in kind]
    return plain(content["schema"], OPENAPI["components"]["schemas"])


def ours(answer: type[answers.Answer]) -> Any:
    schema = answer.model_json_schema(mode="serialization")
    return plain(schema, schema.get("$defs", {})) | {"$defs": None}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_has_a_method_and_its_answer_has_the_same_fields(operation: str):
    answer = get_type_hints(getattr(Client, operation))["return"]
    assert ours(answer) == theirs(operation) | {"$defs": None}
    assert ours(answers.Problem) == theirs("places", "422") | {"$defs": None}


@pytest.mark.parametrize("name", ASKED)
def test_requests_have_the_same_fields(name: str):
    asked, theirs = ASKED[name], OPENAPI["components"]["schemas"][name]
    hints = get_type_hints(asked)
    assert set(hints) == set(theirs["properties"])
    assert asked.__required_keys__ == set(theirs.get("required", ()))
    for field, hint in hints.items():
        if get_origin(hint) is Literal:
            assert set(get_args(hint)) == set(theirs["properties"][field]["enum"]), field


def test_both_clients_have_the_same_methods():
    def methods(of: type) -> dict[str, list[str]]:
        public = {n: f for n, f in inspect.getmembers(of, inspect.isfunction) if not n.startswith("_")}
        return {name: list(inspect.signature(function).parameters) for name, function in public.items()}

    assert methods(Client) == methods(AsyncClient)
    assert set(methods(Client)) == {*OPERATIONS, *PAGES, "close"}


def test_it_brings_nothing_else_of_the_project():
    code = (
        "import sys, recsys.client; print(sorted(m for m in sys.modules if m.split('.')[0] in "
        "('torch', 'feast', 'duckdb', 'numpy', 'pyarrow', 'fastapi', 'qdrant_client') "
        "or m.startswith('recsys.') and not m.startswith('recsys.client')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served_here(create_app(Settings(), ready=make_state(tmp_path_factory.mktemp("client")))) as url:
        yield url


@pytest.fixture(scope="module")
def client(base: str) -> Iterator[Client]:
    with Client(base) as made:
        yield made


EVENT: asks.Event = {"id": "c-1", "user_id": 4, "place_id": 9, "kind": "view", "timestamp": NOW - timedelta(hours=1)}
# What each method is asked, and what its answer must then say.
SENT: dict[str, tuple[tuple[Any, ...], dict[str, Any], Callable[[Any], bool]]] = {
    "root": ((), {}, lambda a: a.model_version == "test-1"),
    "health": ((), {}, lambda a: a.status == "alive"),
    "ready": ((), {}, lambda a: a.model_version == "test-1"),
    "taxonomy": ((), {}, lambda a: len(a.tags) == len(a.tag_category) == 100),
    "places": (
        (),
        {"user_id": 4, "city_id": 2, "filters": {"price": {"max": 3}}, "explain": "parts", "top_k": 3},
        lambda a: a.user.user_id == 4 and len(a.recommendations) == 3 and bool(a.recommendations[0].score_parts),
    ),
    "people": ((), {"user_id": 4, "top_k": 2}, lambda a: len(a.recommendations) == 2),
    "groups": ((), {"user_ids": (1, 4), "strategy": "average", "top_k": 2}, lambda a: a.strategy == "average"),
    "explain": ((), {"user_id": 4, "place_id": 1}, lambda a: bool(a.outcome and a.words)),
    "events": (
        ([EVENT, {**EVENT, "id": "c-2", "user_id": 10**6}],),
        {},
        lambda a: [r.index for r in a.rejected] == [1],
    ),
    "block": ((3, [6, 9]), {}, lambda a: [u.user_id for u in a.blocks] == [6, 9]),
    "blocks": ((3,), {}, lambda a: a.user.user_id == 3 and len(a.blocks) == 2),
    "unblock": ((3, [6, 9]), {}, lambda a: a.blocks == []),
    "hide": ((5,), {}, lambda a: a.hidden and a.place.place_id == 5),
    "hidden": ((5,), {}, lambda a: a.hidden),
    "show": ((5,), {}, lambda a: not a.hidden),
}


def test_every_method_works_against_a_served_app(client: Client, base: str):
    assert set(SENT) == set(OPERATIONS)

    async def ask_all() -> None:
        async with AsyncClient(base) as other:
            for name, (positional, named, is_right) in SENT.items():
                assert is_right(await getattr(other, name)(*positional, **named)), name

    for name, (positional, named, is_right) in SENT.items():
        assert is_right(getattr(client, name)(*positional, **named)), name
    asyncio.run(ask_all())


def test_the_pages_examples_run_and_every_method_is_on_it(base: str, capsys: pytest.CaptureFixture[str]):
    page = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
    assert {name for name in (*OPERATIONS, *PAGES, *package.__all__) if not re.search(rf"\b{name}\b", page)} == set()
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 6
    for block in blocks:
        exec(block.replace("http://127.0.0.1:8000", base), names)
    said = capsys.readouterr().out
    assert "ranked by test-1" in said
    assert "1 0 []" in said
    assert "[('top_k', 'Input should be less than or equal to 100')]" in said
    names["client"].close()
    names["patient"].close()


def test_pages_go_on_to_the_end_of_the_list_each_once(client: Client, base: str):
    pages = list(client.people_pages(user_id=4, top_k=7))
    found = [r.user_id for page in pages for r in page.recommendations]
    assert len(pages) == 3
    assert sorted(found) == [i for i in range(59) if i % 3 == 1 and i != 4]
    assert [p.next_cursor is None for p in pages] == [False, False, True]

    async def ask() -> list[answers.People]:
        async with AsyncClient(base) as other:
            return [page async for page in other.people_pages(user_id=4, top_k=7)]

    assert [p.recommendations for p in asyncio.run(ask())] == [p.recommendations for p in pages]
    assert len(next(client.place_pages(user_id=4, top_k=5)).recommendations) == 5
    assert len(next(client.group_pages(user_ids=[4, 7], top_k=5)).recommendations) == 5


def test_a_refusal_carries_what_the_server_said(client: Client):
    with pytest.raises(InvalidField, match="top_k: ") as invalid:
        client.places(user_id=1, top_k=101)
    assert [e.field for e in invalid.value.errors] == ["top_k"]
    assert invalid.value.request_id
    with pytest.raises(NotFound, match="there is no user 1000000") as unknown:
        client.places(user_id=10**6)
    assert (unknown.value.status, unknown.value.title, unknown.value.errors) == (404, "Not Found", ())


@pytest.mark.parametrize("user_id", ["a/b", ".", "..", "a?b#c", "%2F", "\u0436 \u00fc", "nyc:7", "a.b"])
def test_an_id_arrives_as_it_is_in_an_address_as_in_a_body(client: Client, user_id: str):
    for ask in (lambda: client.blocks(user_id), lambda: client.places(user_id=user_id)):
        with pytest.raises(NotFound) as refused:
            ask()
        assert repr(user_id) in refused.value.detail


def test_what_would_be_misunderstood_is_not_sent(client: Client):
    with pytest.raises(ValueError, match=r"like 'source:42'.*\(got '42'\)"):
        client.hide("42")
    with pytest.raises(ValueError, match="needs an offset"):
        client.events([{**EVENT, "timestamp": datetime(2024, 3, 24, 18)}])  # noqa: DTZ001 - that is the point


def test_a_key_is_sent_and_shown_nowhere(tmp_path: Path):
    secret, key = make("an-app")
    app = create_app(Settings(api_keys=key.entry), ready=make_state(tmp_path))
    with served_here(app) as url, Client(url) as nobody, Client(url, api_key=secret) as known:
        with pytest.raises(Unauthorized, match="this needs an API key"):
            nobody.taxonomy()
        assert known.taxonomy().model_version == "test-1"
        assert secret not in repr(vars(known))
        with Client(url, api_key="another") as other, pytest.raises(Forbidden, match="no such API key"):
            other.taxonomy()


def test_nobody_there_is_said_after_the_last_try():
    nobody = f"http://127.0.0.1:{free_port()}"
    with (
        Client(nobody, patience=Patience(first_wait_s=0.001)) as made,
        pytest.raises(NoAnswer, match="GET /health: ConnectError"),
    ):
        made.health()


def test_nothing_published_is_said_at_once_by_ready_and_waited_for_by_others():
    async def ask() -> None:
        app = create_app(Settings(), ready=State(None, lambda: NOW))
        async with app.router.lifespan_context(app):
            for patience, waits in ((Patience(most_wait_s=0.5), False), (Patience(retries=1), True)):
                transport = httpx.ASGITransport(app)
                async with AsyncClient("http://here", patience=patience, transport=transport) as made:
                    began = asyncio.get_running_loop().time()
                    with pytest.raises(Unavailable) as refused:
                        await (made.places(user_id=1) if waits else made.ready())
                    assert refused.value.retry_after_s == 1
                    assert (asyncio.get_running_loop().time() - began >= 1) == waits

    asyncio.run(ask())


def refuses(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={}, headers={k.replace("_", "-"): v for k, v in headers.items()})


PLACES, EVENTS, READY = calls.places({"user_id": 1}), calls.events([EVENT]), calls.ready()
LOST, NEVER = httpx.ReadTimeout(""), httpx.ConnectError("refused")


@pytest.mark.parametrize(
    ("call", "outcome", "raised", "waits"),
    [
        (PLACES, LOST, NoAnswer, None),  # perhaps it was answered, and noted as shown
        (PLACES, NEVER, NoAnswer, (0.05, 0.1)),
        (PLACES, refuses(429, retry_after="3"), TooManyRequests, (3, 3)),
        (PLACES, refuses(503, retry_after="1"), Unavailable, (1, 1)),
        (PLACES, refuses(503, retry_after="6"), Unavailable, None),  # longer than anybody wants to wait
        (PLACES, refuses(503), Unavailable, None),
        (PLACES, refuses(500), ApiError, None),
        (PLACES, refuses(422), InvalidField, None),
        (PLACES, refuses(502), ApiError, None),
        (PLACES, refuses(307, location="/"), UnexpectedAnswer, None),
        (EVENTS, LOST, NoAnswer, (0.05, 0.1)),
        (calls.block(1, [2]), LOST, NoAnswer, (0.05, 0.1)),
        (calls.unblock(1, [2]), LOST, NoAnswer, (0.05, 0.1)),
        (calls.hide(1), LOST, NoAnswer, (0.05, 0.1)),
        (calls.explain({"user_id": 1, "place_id": 1}), LOST, NoAnswer, (0.05, 0.1)),
        (READY, refuses(503, retry_after="1"), Unavailable, None),
    ],
)
def test_what_is_tried_again_and_when(call: Call, outcome, raised: type[Exception], waits):
    steps = exchange(call, Patience(retries=2))
    assert next(steps) == 0
    if waits is None:
        with pytest.raises(raised):
            steps.send(outcome)
        return
    low, high = waits
    assert low <= steps.send(outcome) <= high
    if isinstance(outcome, Exception):
        low, high = 2 * low, 2 * high
    assert low <= steps.send(outcome) <= high
    with pytest.raises(raised):
        steps.send(outcome)


def test_an_answer_after_a_refusal_is_the_answer():
    steps = exchange(calls.health(), Patience())
    next(steps)
    steps.send(NEVER)
    with pytest.raises(StopIteration) as ended:
        steps.send(httpx.Response(200, json={"status": "alive", "added": "later"}))
    assert ended.value.value == answers.Health(status="alive")


def test_what_is_no_answer_of_such_a_server_is_said():
    for body in (b"<html>", b'{"status": "dead"}'):
        steps = exchange(calls.health(), Patience())
        next(steps)
        with pytest.raises(UnexpectedAnswer, match="GET /health: "):
            steps.send(httpx.Response(200, content=body))
    steps = exchange(calls.health(), Patience())
    next(steps)
    with pytest.raises(ApiError, match="502 Bad Gateway: <html> upstream"):
        steps.send(httpx.Response(502, text="<html>\n upstream" + "x" * 300))
