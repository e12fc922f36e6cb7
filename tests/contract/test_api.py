"""The API as an application team meets it: fields, codes, one error shape, ids, limits."""

import json
import logging
import re
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from rich.console import Console

from api.app import create_app
from api.middleware import MAX_BODY_BYTES
from api.state import State
from jobs import demo, serve
from jobs.report import Report
from recsys.errors import ConfigError, NotReady, UnknownPlace, UnknownUser
from recsys.recommend.identity import SourceIds
from recsys.services import running
from recsys.settings import Settings
from recsys.sources import PEOPLE_SOURCES, PLACE_SOURCES
from tests.conftest import free_port
from tests.parts import N_PLACES, N_USERS, NOW, make_engine

SEED_PLACE = {"place_id", "score", "explanations"}
SEED_PERSON = {"user_id", "compat_score", "attend_prob", "combined_score", "explanations"}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> State:
    return State(make_engine(tmp_path_factory.mktemp("index")), lambda: NOW)


@pytest.fixture(scope="module")
def client(state: State) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(), ready=state), raise_server_exceptions=False) as made:
        yield made


@pytest.fixture
def empty_client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(data_dir=tmp_path), ready=State(None, lambda: NOW))) as made:
        yield made


def assert_problem(answer, status: int) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) == {"type", "title", "status", "detail", "request_id", "errors"}
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]
    return body


def test_places_have_the_seeds_fields_and_the_added_ones(client: TestClient):
    answer = client.post(
        "/recommend/places",
        json={"user_id": 4, "city_id": 2, "time_slot": 3, "desired_categories": [0, 2], "top_k": 10},
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {
        "user", "recommendations", "city_id", "city_name", "features_age_s", "model_version", "request_id",
        "next_cursor", "degraded",
    }  # fmt: skip
    assert body["degraded"] == []
    assert body["user"] == {"user_id": 4, "source": None, "source_id": None}
    assert (body["city_id"], body["city_name"], body["model_version"]) == (2, "City 2", "test-1")
    found = body["recommendations"]
    assert len(found) == len({r["place_id"] for r in found}) == 10
    assert all(r["place_id"] % 3 == 2 for r in found)
    assert [r["score"] for r in found] == sorted((r["score"] for r in found), reverse=True)
    for r in found:
        assert set(r) == {*SEED_PLACE, "name", "neighborhood_name", "source", "source_id", "sources", "score_parts"}
        assert set(r["sources"]) <= set(PLACE_SOURCES)
        assert 0 < r["score"] < 1
        assert 1 <= len(r["explanations"]) <= 3


def test_places_where_the_user_was_are_left_out_on_request(client: TestClient):
    def ask(**more: bool) -> list[dict]:
        return client.post("/recommend/places", json={"user_id": 4, "top_k": 100} | more).json()["recommendations"]

    everything = ask()
    own = {r["place_id"] for r in everything if "own" in r["sources"]}
    assert own
    assert {r["place_id"] for r in ask(exclude_visited=True)} == {r["place_id"] for r in everything} - own
    assert ask(exclude_visited=False) == everything


def test_filters_and_exclusions_narrow_the_list_and_a_cursor_goes_on(client: TestClient, state: State):
    assert state.engine is not None
    rows = state.engine.features.place_rows

    def ask(**more: object) -> dict:
        answer = client.post("/recommend/places", json={"user_id": 4} | more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ids(body: dict) -> list[int]:
        return [r["place_id"] for r in body["recommendations"]]

    everything = ids(ask(top_k=100))
    cheap = ask(top_k=100, filters={"price": {"max": 1}, "neighborhoods": ["Quarter 1-0", 2]})
    assert ids(cheap) == [i for i in everything if rows[i].price_band <= 1 and rows[i].neighborhood_id in (0, 2)]
    assert cheap["next_cursor"] is None
    assert ids(ask(exclude_place_ids=everything[:5])) == everything[5:15]
    first = ask(top_k=7)
    second = ask(top_k=7, cursor=first["next_cursor"])
    assert ids(first) + ids(second) == everything[:14]
    assert all(r["explanations"] == [] for r in ask(explain="none")["recommendations"])
    assert ids(ask(diversity=1)) != ids(ask())


def test_a_group_gets_places_and_what_each_is_to_each_of_them(client: TestClient):
    answer = client.post("/recommend/groups", json={"user_ids": [4, 7, 5], "top_k": 4, "strategy": "average"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {
        "users", "strategy", "recommendations", "city_id", "city_name", "features_age_s", "next_cursor",
        "model_version", "request_id", "degraded",
    }  # fmt: skip
    assert [u["user_id"] for u in body["users"]] == [4, 7, 5]
    assert (body["strategy"], body["city_id"], len(body["recommendations"])) == ("average", 1, 4)
    for r in body["recommendations"]:
        assert set(r) == {
            "place_id", "score", "least_misery", "average", "members", "name", "neighborhood_name",
            "source", "source_id",
        }  # fmt: skip
        assert [set(m) for m in r["members"]] == [{"user_id", "source", "source_id", "score", "explanations"}] * 3
    least = client.post("/recommend/groups", json={"user_ids": [4, 7, 5], "explain": "none"}).json()
    assert least["strategy"] == "least_misery"
    assert {tuple(m["explanations"]) for r in least["recommendations"] for m in r["members"]} == {()}


def test_why_and_why_not(client: TestClient):
    def ask(**body: object) -> dict:
        answer = client.post("/explain", json={"user_id": 4, **body})
        assert answer.status_code == 200, answer.text
        return answer.json()

    listed = client.post("/recommend/places", json={"user_id": 4, "top_k": 3, "explain": "parts"}).json()
    first = listed["recommendations"][0]
    body = ask(place_id=first["place_id"], top_k=3)
    assert set(body) == {
        "user", "outcome", "broken", "retrieval", "rank", "candidates", "score", "score_parts", "words", "city_id",
        "city_name", "model_version", "request_id",
    }  # fmt: skip
    assert (body["outcome"], body["rank"], body["broken"]) == ("recommended", 1, [])
    assert (body["score"], body["score_parts"]) == (first["score"], first["score_parts"])
    assert {s["source"] for s in body["retrieval"]} == set(PLACE_SOURCES)
    assert body["words"]
    body = ask(place_id=first["place_id"], exclude_place_ids=[first["place_id"]])
    assert (body["outcome"], [b["rule"] for b in body["broken"]]) == ("dropped", ["exclude_place_ids"])
    person = ask(person_id=7, target_place_id=3)
    assert person["rank"]
    assert person["outcome"] in ("recommended", "ranked_below")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"user_id": 4}, 422, "place_id"),
        ({"user_id": 4, "place_id": 1, "person_id": 1}, 422, "place_id"),
        ({"user_id": 4, "person_id": 4}, 422, "person_id"),
        ({"user_id": 4, "person_id": 5, "activity_tags": [100]}, 422, "activity_tags.0"),
        ({"place_id": 4}, 422, "user_id"),
        ({"user_id": 4, "place_id": 4, "explain": "parts"}, 422, "explain"),
        ({"user_id": 4, "place_id": N_PLACES}, 404, None),
        ({"user_id": N_USERS, "place_id": 1}, 404, None),
        ({"user_id": 4, "person_id": N_USERS - 1}, 404, None),
    ],
)
def test_what_cannot_be_explained_is_refused(client: TestClient, body: dict, status: int, field: str | None):
    problem = assert_problem(client.post("/explain", json=body), status)
    assert [e["field"] for e in problem["errors"]] == ([field] if field else [])


@pytest.mark.parametrize("who", [{}, {"user_id": 10**6}, {"user_id": "new-one"}])
def test_somebody_unknown_is_answered_by_their_profile(client: TestClient, state: State, who: dict):
    assert state.engine is not None
    body = {**who, "city_id": 1, "profile": {"categories": [2]}, "top_k": 5}
    answer = client.post("/recommend/places", json=body)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert said["degraded"] == ["user_vector"]
    assert said["user"] == ({**who, "source": None, "source_id": None} if who.get("user_id") == 10**6 else None)
    assert len(said["recommendations"]) == 5
    for r in said["recommendations"]:
        assert state.engine.features.place_rows[r["place_id"]].category_one_hot[2] > 0
        assert r["sources"] == ["popular", "profile"]
        assert r["explanations"][0] == "You asked for clubs spots."


def test_the_same_request_twice_gives_the_same_list(client: TestClient):
    for path, body in (("places", {"user_id": 9}), ("people", {"user_id": 9, "target_place_id": 5})):
        first, second = (client.post(f"/recommend/{path}", json=body).json() for _ in range(2))
        assert first["recommendations"] == second["recommendations"]
        assert first["request_id"] != second["request_id"]


def test_the_city_left_out_is_the_users_own(client: TestClient):
    assert client.post("/recommend/places", json={"user_id": 4}).json()["city_id"] == 1
    assert client.post("/recommend/people", json={"user_id": 5}).json()["city_id"] == 2


@pytest.mark.parametrize("user_id", [0, 1, 2, 31])
def test_people_are_of_the_city_and_never_oneself(client: TestClient, user_id: int):
    body = client.post("/recommend/people", json={"user_id": user_id, "top_k": 100}).json()
    found = body["recommendations"]
    expected = {i for i in range(N_USERS - 1) if i % 3 == user_id % 3 and i != user_id}
    assert {r["user_id"] for r in found} == expected
    for r in found:
        assert set(r) == {*SEED_PERSON, "name", "source", "source_id", "sources"}
        assert set(r["sources"]) <= set(PEOPLE_SOURCES)
        assert r["combined_score"] == pytest.approx(0.7 * r["compat_score"] + 0.3 * r["attend_prob"], abs=1e-5)


def test_the_context_of_a_people_request_matters(client: TestClient):
    plain = client.post("/recommend/people", json={"user_id": 3}).json()["recommendations"]
    there = client.post("/recommend/people", json={"user_id": 3, "target_place_id": 7}).json()["recommendations"]
    doing = client.post("/recommend/people", json={"user_id": 3, "activity_tags": [7]}).json()["recommendations"]
    late = client.post("/recommend/people", json={"user_id": 3, "time_slot": 5}).json()["recommendations"]
    scores = [[r["combined_score"] for r in found] for found in (plain, there, doing, late)]
    assert len({tuple(s) for s in scores}) == 4


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("places", {"user_id": 10**6}),
        ("places", {"user_id": 2**63 - 1}),
        ("places", {"user_id": 1, "city_id": 3}),
        ("places", {"user_id": N_USERS - 1}),
        ("people", {"user_id": 10**6}),
        ("people", {"user_id": 1, "target_place_id": N_PLACES}),
        ("people", {"user_id": 1, "city_id": 99}),
    ],
)
def test_what_is_nowhere_in_the_data_is_404(client: TestClient, path: str, body: dict):
    detail = assert_problem(client.post(f"/recommend/{path}", json=body), 404)["detail"]
    assert re.search(r"there is no|is not in model version test-1", detail)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("places", {}, "user_id"),
        ("places", {"user_id": -1}, "user_id"),
        ("places", {"user_id": 2**63}, "user_id"),
        ("places", {"user_id": ""}, "user_id"),
        ("places", {"user_id": "x" * 201}, "user_id"),
        ("places", {"user_id": None}, "user_id"),
        ("places", {"user_id": [1]}, "user_id"),
        ("places", {"user_id": 1.5}, "user_id"),
        ("places", {"user_id": True}, "user_id"),
        ("places", {"user_id": 1, "city_id": False}, "city_id"),
        ("places", {"user_id": 1, "time_slot": -1}, "time_slot"),
        ("places", {"user_id": 1, "desired_categories": [True]}, "desired_categories.0"),
        ("places", {"user_id": 1, "time_slot": 6}, "time_slot"),
        ("places", {"user_id": 1, "desired_categories": [0, 6]}, "desired_categories.1"),
        ("places", {"user_id": 1, "desired_categories": [0] * 513}, "desired_categories"),
        ("places", {"user_id": 1, "top_k": 0}, "top_k"),
        ("places", {"user_id": 1, "top_k": 101}, "top_k"),
        ("places", {"user_id": 1, "topk": 5}, "topk"),
        ("places", {"user_id": 1, "exclude_visited": 1}, "exclude_visited"),
        ("places", {"user_id": 1, "filters": {"price": {"min": 3, "max": 2}}}, "filters.price"),
        ("places", {"user_id": 1, "filters": {"price": {"min": 5}}}, "filters.price.min"),
        ("places", {"user_id": 1, "filters": {"price": {"low": 1}}}, "filters.price.low"),
        ("places", {"user_id": 1, "filters": {"categories": []}}, "filters.categories"),
        ("places", {"user_id": 1, "filters": {"categories": [6]}}, "filters.categories.0"),
        ("places", {"user_id": 1, "filters": {"tags": [0, 100]}}, "filters.tags.1"),
        ("places", {"user_id": 1, "filters": {"neighborhoods": ["Nowhere"]}}, "filters.neighborhoods.0"),
        ("places", {"user_id": 1, "filters": {"neighborhoods": [True]}}, "filters.neighborhoods.0"),
        ("places", {"user_id": 1, "filters": {"open_slot": 6}}, "filters.open_slot"),
        ("places", {"user_id": 1, "filters": {"open": True}}, "filters.open"),
        ("places", {"user_id": 1, "exclude_place_ids": [1, -1]}, "exclude_place_ids.1"),
        ("places", {"user_id": 1, "exclude_place_ids": [1] * 1_001}, "exclude_place_ids"),
        ("places", {"user_id": 1, "diversity": 1.1}, "diversity"),
        ("places", {"user_id": 1, "diversity": True}, "diversity"),
        ("places", {"user_id": 1, "novelty": -0.1}, "novelty"),
        ("places", {"user_id": 1, "cursor": ""}, "cursor"),
        ("places", {"user_id": 1, "cursor": "abc"}, "cursor"),
        ("places", {"user_id": 1, "explain": "all"}, "explain"),
        ("places", {"profile": {"categories": [0]}}, "city_id"),
        ("places", {"profile": {"categories": [6]}, "city_id": 1}, "profile.categories.0"),
        ("places", {"profile": {"likes": [6]}, "city_id": 1}, "profile.likes"),
        ("people", {"user_id": 1, "activity_tags": [100]}, "activity_tags.0"),
        ("people", {"user_id": 1, "target_place_id": -4}, "target_place_id"),
        ("people", {"user_id": 1, "city_id": -1}, "city_id"),
        ("people", {"user_id": 1, "exclude_friends": True}, "exclude_friends"),
        ("people", {"user_id": 1, "cursor": "AAAA"}, "cursor"),
        ("groups", {"user_ids": [1, 2], "explain": "parts"}, "explain"),
        ("groups", {"user_ids": [1]}, "user_ids"),
        ("groups", {"user_ids": [1, 2, 1]}, "user_ids.2"),
        ("groups", {"user_ids": list(range(11))}, "user_ids"),
        ("groups", {"user_ids": [1, 2], "strategy": "most_pleasure"}, "strategy"),
        ("groups", {"user_ids": [1, 2], "user_id": 1}, "user_id"),
    ],
)
def test_a_field_out_of_its_range_is_422_and_named(client: TestClient, path: str, body: dict, field: str):
    problem = assert_problem(client.post(f"/recommend/{path}", json=body), 422)
    assert [e["field"] for e in problem["errors"]] == [field]
    assert problem["detail"].startswith(f"{field}: ")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b'{"user_id": NaN}', b'{"user_id": 1e999}', '{"user_id": ["ж"]}'.encode(), b"\xff",
        b'{"user_id": 1, "\\ud800": 1}', b'{"user_id": ' + b"9" * 5000 + b"}", b"[" * 60_000,
    ],
)  # fmt: skip
def test_a_body_that_is_no_request_is_refused(client: TestClient, content: bytes):
    answer = client.post("/recommend/places", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert_problem(answer, answer.status_code)


def test_a_large_body_is_413_stated_or_streamed(client: TestClient):
    assert_problem(client.post("/recommend/places", content=b" " * (MAX_BODY_BYTES + 1)), 413)
    chunks = (b" " * 1024 for _ in range(MAX_BODY_BYTES // 1024 + 2))
    assert_problem(client.post("/recommend/places", content=chunks), 413)
    body = json.dumps({"user_id": 1}).ljust(MAX_BODY_BYTES)
    assert (
        client.post("/recommend/places", content=body, headers={"content-type": "application/json"}).status_code == 200
    )


def test_unknown_paths_and_methods_have_the_same_shape(client: TestClient):
    assert_problem(client.get("/nowhere"), 404)
    assert_problem(client.get("/recommend/places"), 405)


def test_a_request_id_is_taken_over_when_it_is_sane(client: TestClient):
    assert client.get("/health", headers={"x-request-id": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
    for bad in ("a b", "x" * 65, "<script>", ""):
        made = client.get("/health", headers={"x-request-id": bad}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", made)


def test_every_log_line_is_json_with_the_request_id(client: TestClient, capsys: pytest.CaptureFixture[str]):
    client.post("/recommend/places", json={"user_id": 10**6}, headers={"x-request-id": "find-me"})
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines
    access = [line for line in lines if line["event"] == "request"]
    assert [(a["path"], a["status"], a["request_id"]) for a in access] == [("/recommend/places", 404, "find-me")]


def test_a_store_that_is_down_is_done_without_but_explains_nothing(client: TestClient, state: State):
    assert state.engine is not None
    whole = client.get("/ready").json()
    assert whole == {
        "status": "ready", "model_version": "test-1",
        "parts": {"online_store": "answers", "index": "answers", "model": "loaded", "popular": "loaded"},
    }  # fmt: skip
    state.engine.features.down = True
    try:
        asked = {"places": {"user_id": 1}, "people": {"user_id": 1}, "groups": {"user_ids": [1, 4]}}
        for path, body in asked.items():
            answer = client.post(f"/recommend/{path}", json=body)
            assert answer.status_code == 200, answer.text
            assert set(answer.json()["degraded"]) <= {
                "online_features",
                "online_features:last_known",
                "online_profiles",
            }
            assert len(answer.json()["degraded"]) == 2
            assert len(answer.json()["recommendations"]) == 10
        answer = client.post("/explain", json={"user_id": 1, "place_id": 1})
        assert_problem(answer, 503)
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["detail"] == "the online store did not answer in time"  # no address, no vendor's words
        degraded = client.get("/ready")
        assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
        assert degraded.json()["parts"] == whole["parts"] | {"online_store": "does not answer"}
        assert client.get("/health").status_code == 200
    finally:
        state.engine.features.down = False
    deadline = time.monotonic() + 10
    while client.get("/ready").json()["status"] == "degraded":
        assert time.monotonic() < deadline, "it answers again, but is not asked"
    assert client.post("/recommend/people", json={"user_id": 1}).json()["degraded"] == []


def test_what_nobody_foresaw_is_500_and_tells_nothing(
    client: TestClient, state: State, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def explode(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret detail")

    assert state.engine is not None
    monkeypatch.setattr(state.engine.features, "rank_places", explode)
    answer = client.post("/recommend/places", json={"user_id": 1})
    assert "secret" not in answer.text
    problem = assert_problem(answer, 500)
    logged = capsys.readouterr().out
    assert "secret detail" in logged
    assert problem["request_id"] in logged


def test_before_the_first_publish_it_is_alive_but_not_ready(empty_client: TestClient):
    assert empty_client.get("/health").status_code == 200
    assert "recsys publish" in assert_problem(empty_client.get("/ready"), 503)["detail"]
    assert_problem(empty_client.post("/recommend/places", json={"user_id": 1}), 503)
    assert empty_client.get("/").json()["model_version"] is None


def test_the_first_page_is_json_for_programs_and_html_for_browsers(client: TestClient):
    assert client.get("/").json()["links"]["docs"] == "/docs"
    page = client.get("/", headers={"accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")
    assert "test-1" in page.text
    assert "curl -s http://testserver/recommend/places" in page.text, "the example asks where the page came from"
    assert not re.search(r'(?:src|href)="(?!/)', page.text)
    assert client.get("/").headers["vary"] == page.headers["vary"] == "accept"


def test_the_docs_work_without_a_network(client: TestClient):
    page = client.get("/docs").text
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert sources
    for source in sources:
        assert source.startswith("/"), source
        assert client.get(source).status_code == 200


def test_the_console_is_this_servers_alone(client: TestClient, empty_client: TestClient):
    for served in (client, empty_client):
        page = served.get("/console")
        assert page.status_code == 200
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert sources
        for source in sources:
            assert source.startswith("/"), source
            assert served.get(source).status_code == 200, source
    assert "recsys publish" in assert_problem(empty_client.get("/console/about"), 503)["detail"]
    assert client.get("/console/static/../console/pages.py").status_code == 404


def test_every_answer_that_can_come_is_in_the_openapi_file(client: TestClient):
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        "/", "/health", "/ready", "/taxonomy", "/recommend/places", "/recommend/people", "/events",
        "/recommend/groups", "/explain", "/users/{user_id}/blocks", "/places/{place_id}/hidden",
    }  # fmt: skip
    methods = [
        *(
            (path, "post")
            for path in ("/recommend/places", "/recommend/people", "/recommend/groups", "/explain", "/events")
        ),
        *((path, method) for path in paths if path.startswith(("/users", "/places")) for method in paths[path]),
    ]
    assert len(methods) == 11
    for path, method in methods:
        answers = paths[path][method]["responses"]
        assert set(answers) == {"200", "400", "401", "403", "404", "408", "413", "422", "429", "500", "503"}
        for status, answer in answers.items():
            assert list(answer["content"]) == ["application/json" if status == "200" else "application/problem+json"]


def test_what_the_http_server_complains_about_is_json_too(client: TestClient, capsys: pytest.CaptureFixture[str]):
    logging.getLogger("uvicorn.error").warning("Invalid %s request received.", "HTTP")
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["detail"] == "Invalid HTTP request received."


@pytest.fixture
def alone(tmp_path: Path) -> Settings:
    """An installation of its own, with nothing published and its online store down."""
    redis_url = f"redis://127.0.0.1:{free_port()}/0"
    return Settings(data_dir=tmp_path, redis_url=redis_url, port=free_port(), feature_repo=tmp_path)


def report(settings: Settings) -> Report:
    return Report("serve", settings.reports, Console(file=StringIO()))


@pytest.fixture
def sigterm_fails() -> Iterator[object]:
    """A SIGTERM that nobody unwinds fails the test instead of ending the run."""

    def fail(*_: object) -> None:
        raise AssertionError("SIGTERM would have ended the process at once")

    before = signal.signal(signal.SIGTERM, fail)
    yield fail
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_serve_answers_until_a_signal_and_stops_the_store_it_started(
    alone: Settings, sent: signal.Signals, sigterm_fails: object
):
    seen = []

    def first_look(base: str) -> None:
        assert base == f"http://127.0.0.1:{alone.port}"
        seen.append(running(alone.redis_url, alone.redis))
        signal.raise_signal(sent)

    if sent == signal.SIGINT:
        serve.run(alone, report(alone), on_ready=first_look)
    else:
        with pytest.raises(SystemExit) as ended:
            serve.run(alone, report(alone), on_ready=first_look)
        assert ended.value.code == 128 + signal.SIGTERM
    assert len(seen) == 1
    assert seen[0] is not None
    assert running(alone.redis_url, alone.redis) is None
    assert signal.getsignal(signal.SIGTERM) is sigterm_fails, "the handler that was there is back"


def test_serve_leaves_a_store_that_ran_before_it(alone: Settings):
    with serve.online_store(alone):
        serve.run(alone, report(alone), on_ready=lambda _: signal.raise_signal(signal.SIGINT))
        assert running(alone.redis_url, alone.redis) is not None
    assert running(alone.redis_url, alone.redis) is None


def test_the_demo_stops_the_store_that_its_stages_use(alone: Settings, monkeypatch: pytest.MonkeyPatch):
    """A stage that finds no store starts one and leaves it: the demo must have started it before."""
    stages = []

    def stage(settings: Settings, _: Report) -> None:
        stages.append(running(settings.redis_url, settings.redis))
        raise NotReady("a stage that fails")

    monkeypatch.setattr(demo.pipeline, "run", stage)
    with pytest.raises(NotReady, match="a stage that fails"):
        demo.run(alone, report(alone))
    assert len(stages) == 1
    assert stages[0] is not None
    assert running(alone.redis_url, alone.redis) is None


def test_serve_on_a_port_in_use_says_so_and_starts_nothing(alone: Settings):
    with socket.create_server(("127.0.0.1", alone.port)), pytest.raises(ConfigError, match=f"got {alone.port}"):
        serve.run(alone, report(alone))
    assert not alone.redis.exists()


def test_serve_of_a_version_without_its_artifact_is_one_clear_error(alone: Settings):
    alone.index.mkdir(parents=True)
    (alone.index / "live.json").write_text('{"live": "gone", "previous": null}')
    with pytest.raises(NotReady, match="no model version gone"):
        serve.run(alone, report(alone))
    assert running(alone.redis_url, alone.redis) is None


def test_the_first_look_shows_places_people_and_reasons(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    """The demo's requests, answered by the app itself; brackets in a name are a name."""

    def post(_: httpx.Client, url: str, **options: dict) -> httpx.Response:
        answer = client.post(url, **options)
        body = answer.json()
        for row in body.get("recommendations", ()):
            row["name"] = f"[/{row['name']}]"
        return httpx.Response(answer.status_code, json=body)

    monkeypatch.setattr(httpx.Client, "post", post)
    shown = StringIO()
    demo.show("http://testserver", 4, Console(file=shown, width=200))
    text = shown.getvalue()
    assert "Places to go for user 4 in City 1" in text
    assert "People to go with for user 4 in City 1" in text
    assert len(re.findall(r"\[/Place \d+\]", text)) == len(re.findall(r"\[/User \d+\]", text)) == 3
    demo.show("http://testserver", 10**6, Console(file=shown, width=200))
    assert "there is no user 1000000" in shown.getvalue()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    users = [(i, "nyc" if i % 3 else "jakarta", "7" if i in (3, 4) else f"u-{i}") for i in range(N_USERS)]
    users[5] = (5, "nyc", "nyc:odd")
    places = [(i, "nyc" if i % 3 else "jakarta", f"4b{i:05x}") for i in range(N_PLACES)]

    def table(rows: list[tuple[int, str, str]]) -> pa.Table:
        names = ("id", "source", "source_id")
        return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in reversed(rows)])

    engine = replace(
        make_engine(tmp_path_factory.mktemp("own")),
        users=SourceIds("user", table(users), UnknownUser),
        places=SourceIds("place", table(places), UnknownPlace),
    )
    with TestClient(create_app(Settings(), ready=State(engine, lambda: NOW)), raise_server_exceptions=False) as made:
        yield made


class TestIdsOfTheSources:
    """Two cities of one world, in which both sources have a user "7"; venues have ids of letters."""

    def test_a_sources_id_and_our_number_get_the_same_answer(self, own: TestClient):
        by_name = own.post("/recommend/places", json={"user_id": "u-8"}).json()
        by_number = own.post("/recommend/places", json={"user_id": 8}).json()
        assert by_name["recommendations"] == by_number["recommendations"]
        assert by_name["user"] == by_number["user"] == {"user_id": 8, "source": "nyc", "source_id": "u-8"}
        for r in by_name["recommendations"]:
            assert (r["source"], r["source_id"]) == ("nyc", f"4b{r['place_id']:05x}")

    def test_people_and_the_place_to_go_to(self, own: TestClient):
        body = {"user_id": "u-8", "target_place_id": "4b00005"}
        by_name = own.post("/recommend/people", json=body).json()
        by_number = own.post("/recommend/people", json={"user_id": 8, "target_place_id": 5}).json()
        assert by_name["recommendations"] == by_number["recommendations"]
        for r in by_name["recommendations"]:
            assert r["source_id"] in (f"u-{r['user_id']}", "nyc:odd")

    def test_an_id_of_two_sources_must_say_which(self, own: TestClient):
        problem = assert_problem(own.post("/recommend/places", json={"user_id": "7"}), 422)
        assert problem["detail"] == "user_id: 2 sources have this id: say jakarta:7 or nyc:7 (got '7')"
        assert [e["field"] for e in problem["errors"]] == ["user_id"]
        for given, number in (("nyc:7", 4), ("jakarta:7", 3), ("nyc:odd", 5), ("nyc:nyc:odd", 5)):
            assert own.post("/recommend/places", json={"user_id": given}).json()["user"]["user_id"] == number

    @pytest.mark.parametrize("given", ["u-999", "rome:u-8", "jakarta:u-8", "8", ":", "nyc:", "\u0436"])
    def test_an_id_that_nobody_has_is_404(self, own: TestClient, given: str):
        problem = assert_problem(own.post("/recommend/places", json={"user_id": given}), 404)
        assert problem["detail"] == f"there is no user {given!r} in the live version"

    def test_data_without_ids_of_their_own_say_so(self, client: TestClient):
        problem = assert_problem(client.post("/recommend/places", json={"user_id": "42"}), 404)
        said = "there is no user '42' in the live version: this data set has no ids of its own, users are numbers"
        assert problem["detail"] == said
