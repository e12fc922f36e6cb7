"""Blocks and hidden places as an application team meets them: durable, both ways, in every answer."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.state import State
from recsys.errors import UnknownPlace, UnknownUser
from recsys.recommend.identity import SourceIds
from recsys.safety import Safety
from recsys.settings import Settings
from tests.contract.test_api import assert_problem
from tests.parts import N_PLACES, N_USERS, NOW, make_engine


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(make_engine(tmp_path / "index"), lambda: NOW)


@pytest.fixture
def client(state: State) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(), ready=state), raise_server_exceptions=False) as made:
        yield made


def people(client: TestClient, user_id: int) -> list[int]:
    body = client.post("/recommend/people", json={"user_id": user_id, "top_k": 100}).json()
    return [r["user_id"] for r in body["recommendations"]]


def places(client: TestClient, user_id: int, **more: object) -> list[int]:
    body = client.post("/recommend/places", json={"user_id": user_id, "top_k": 100, **more}).json()
    return [r["place_id"] for r in body["recommendations"]]


def test_a_block_works_both_ways_in_the_next_answer_and_is_taken_back(client: TestClient):
    before = people(client, 3), people(client, 6)
    answer = client.put("/users/3/blocks", json={"user_ids": [6, 9]})
    assert answer.status_code == 200, answer.text
    assert [u["user_id"] for u in answer.json()["blocks"]] == [6, 9]
    assert answer.json()["user"] == {"user_id": 3, "source": None, "source_id": None}
    assert people(client, 3) == [i for i in before[0] if i not in (6, 9)]
    assert people(client, 6) == [i for i in before[1] if i != 3]
    assert client.get("/users/6/blocks").json()["blocks"] == [], "whom one blocked is not said to them"
    assert client.put("/users/6/blocks", json={"user_ids": [3]}).status_code == 200
    answer = client.delete("/users/3/blocks", params={"blocked_id": [6, 9]})
    assert answer.json()["blocks"] == []
    assert 6 not in people(client, 3), "the other one's own block stays"
    assert client.delete("/users/6/blocks", params={"blocked_id": 3}).status_code == 200
    assert (people(client, 3), people(client, 6)) == before


def test_a_hidden_place_is_in_no_answer_and_the_next_best_takes_its_place(client: TestClient):
    before = places(client, 4)
    for place in before[:3]:
        answer = client.put(f"/places/{place}/hidden")
        assert answer.json()["hidden"] is True, answer.text
    assert places(client, 4) == before[3:]
    assert places(client, 4, top_k=10) == before[3:13]
    assert client.get(f"/places/{before[0]}/hidden").json()["hidden"] is True
    assert client.delete(f"/places/{before[0]}/hidden").json()["hidden"] is False
    assert places(client, 4) == [before[0], *before[3:]]


def test_what_another_worker_decided_holds_too(client: TestClient, tmp_path: Path):
    there = Safety(tmp_path / "index-safety" / "test")
    first, second = places(client, 4)[:2], people(client, 4)[0]
    there.hide(first[0], NOW)
    there.block(second, [4], NOW)
    assert places(client, 4)[0] == first[1]
    assert second not in people(client, 4)


def test_what_is_decided_while_an_answer_is_made_holds_in_it(client: TestClient, state: State, tmp_path: Path):
    """The last filter by itself: the decision comes after the search, while ranking reads its features."""
    assert state.engine is not None
    there, features = Safety(tmp_path / "index-safety" / "test"), state.engine.features
    best_place, best_person = places(client, 4)[0], people(client, 4)[0]
    ranked_places, ranked_people = features.rank_places, features.rank_people

    def late_places(*args: object, **more: object):
        there.hide(best_place, NOW)
        return ranked_places(*args, **more)

    def late_people(*args: object, **more: object):
        there.block(best_person, [4], NOW)
        return ranked_people(*args, **more)

    features.rank_places, features.rank_people = late_places, late_people
    assert best_place not in places(client, 4)
    assert best_person not in people(client, 4)


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("PUT", "/users/3/blocks", {}, "user_ids"),
        ("PUT", "/users/3/blocks", {"user_ids": []}, "user_ids"),
        ("PUT", "/users/3/blocks", {"user_ids": [4, 3]}, "user_ids.1"),
        ("PUT", "/users/3/blocks", {"user_ids": [True]}, "user_ids.0"),
        ("PUT", "/users/3/blocks", {"user_ids": [-1]}, "user_ids.0"),
        ("PUT", "/users/3/blocks", {"user_ids": [1], "until": 5}, "until"),
        ("DELETE", "/users/3/blocks", None, "blocked_id"),
        ("PUT", f"/users/{'9' * 201}/blocks", {"user_ids": [1]}, "user_id"),
    ],
)
def test_what_breaks_the_schema_is_422(client: TestClient, method: str, path: str, body: object, field: str):
    problem = assert_problem(client.request(method, path, json=body), 422)
    assert [e["field"] for e in problem["errors"]] == [field]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", f"/users/{N_USERS}/blocks", {"user_ids": [1]}),
        ("PUT", "/users/1/blocks", {"user_ids": [2, N_USERS]}),
        ("PUT", "/users/1/blocks", {"user_ids": ["anna"]}),
        ("PUT", "/users/9223372036854775808/blocks", {"user_ids": [1]}),
        ("PUT", "/users/-1/blocks", {"user_ids": [1]}),
        ("PUT", "/users/٣/blocks", {"user_ids": [1]}),
        ("PUT", f"/places/{N_PLACES}/hidden", None),
        ("GET", "/places/somewhere/hidden", None),
    ],
)
def test_ids_that_nobody_has_are_404_and_nothing_is_decided(
    client: TestClient, tmp_path: Path, method: str, path: str, body: object
):
    assert_problem(client.request(method, path, json=body), 404)
    assert not (tmp_path / "index-safety").exists()


def test_a_block_is_taken_when_the_online_store_is_down(client: TestClient, state: State):
    """Who is asking for safety is not told to come back."""
    assert state.engine is not None
    state.engine.features.down = True
    assert client.put("/users/3/blocks", json={"user_ids": [6]}).status_code == 200
    state.engine.features.down = False
    assert 6 not in people(client, 3)


def test_a_list_that_cannot_be_written_is_503(client: TestClient, state: State, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recsys.safety.os.fsync", full)
    problem = assert_problem(client.put("/places/3/hidden"), 503)
    assert problem["detail"] == "the list of blocks and hidden places did not answer in time"


def test_a_teams_own_ids_name_users_and_places(state: State):
    assert state.engine is not None
    ids = pa.table({"id": [3, 6], "source": ["app", "app"], "source_id": ["an/na", "7"]})
    where = pa.table({"id": [4], "source": ["app"], "source_id": ["café:1"]})
    own = replace(
        state.engine, users=SourceIds("user", ids, UnknownUser), places=SourceIds("place", where, UnknownPlace)
    )
    with TestClient(create_app(Settings(), ready=State(own, lambda: NOW))) as client:
        answer = client.put("/users/an%2Fna/blocks", json={"user_ids": ["7"]})
        assert [answer.json()["user"]["user_id"], answer.json()["blocks"][0]["source_id"]] == [3, "7"]
        assert client.delete("/users/an%2Fna/blocks", params={"blocked_id": "app:7"}).json()["blocks"] == []
        assert client.put("/places/café:1/hidden").json()["place"]["place_id"] == 4
