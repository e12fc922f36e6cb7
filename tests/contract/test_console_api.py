"""What stands behind the console's page: typed answers, and refusals of the usual shape."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.console.desk import Turns
from api.console.job import run_command
from api.state import State
from recsys.errors import JobRefused, JobTooSlow
from recsys.settings import Settings
from tests.conftest import ROOT
from tests.parts import N_PLACES, N_USERS, NOW, make_engine


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("console")
    state = State(
        make_engine(folder / "index"), lambda: NOW, known_users=np.arange(N_USERS - 1), known_places=np.arange(N_PLACES)
    )
    with TestClient(create_app(Settings(data_dir=folder, _env_file=None), ready=state)) as made:
        yield made


def test_its_document_is_its_own_and_describes_everything(client: TestClient):
    schema = client.get("/console/openapi.json").json()
    said = (ROOT / "docs" / "api.md").read_text()
    for path, methods in schema["paths"].items():
        assert path.startswith("/console")
        for method, operation in methods.items():
            assert f"`{method.upper()} {path}`" in said
            assert operation["description"], path
            for parameter in operation.get("parameters", ()):
                assert parameter.get("description"), f"{path}: {parameter['name']}"
    for name, part in schema["components"]["schemas"].items():
        assert part["description"], name
        for field, about in part["properties"].items():
            assert about.get("description"), f"{name}.{field}"
    assert not any(path.startswith("/console") for path in client.get("/openapi.json").json()["paths"])


def test_without_a_lake_people_are_found_by_number(client: TestClient):
    about = client.get("/console/about").json()
    assert not about["names"]
    assert not about["synthetic"]
    assert about["versions"] == [about["model_version"]]
    assert [u["user_id"] for u in client.get("/console/users?q=7").json()["users"]] == [7]
    assert client.get("/console/users?q=nobody").json()["users"] == []
    assert client.get(f"/console/users?q={N_USERS + 5}").json()["users"] == []
    anybody = client.get("/console/users?limit=3").json()["users"]
    assert len({u["user_id"] for u in anybody}) == 3
    assert client.get("/console/users/3").json()["user_id"] == 3


def test_popular_places_are_by_visitors_within_the_rules(client: TestClient):
    city = client.get("/console/about").json()["cities"][0]["city_id"]
    found = client.post("/console/popular", json={"city_id": city, "top_k": 5}).json()["recommendations"]
    assert found
    assert [p["visitors"] for p in found] == sorted((p["visitors"] for p in found), reverse=True)
    first = found[0]["place_id"]
    without = client.post("/console/popular", json={"city_id": city, "exclude_place_ids": [first]}).json()
    assert first not in {p["place_id"] for p in without["recommendations"]}
    areas = client.get(f"/console/cities/{city}").json()["neighborhoods"]
    assert areas
    assert all(area["latitude"] is None for area in areas)
    cards = client.get(f"/console/places?ids={first}&ids=999999&ids={first}").json()["places"]
    assert [card["place_id"] for card in cards] == [first]
    assert cards[0]["visitors"] == found[0]["visitors"]
    assert cards[0]["latitude"] is None


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("GET", "/console/users/999999", None, 404, "there is no user 999999"),
        ("GET", "/console/users/x", None, 422, "user_id"),
        ("GET", f"/console/users?q={'x' * 201}", None, 422, "q"),
        ("GET", "/console/cities/77", None, 404, "there is no city 77"),
        ("GET", "/console/places", None, 422, "ids"),
        ("GET", "/console/places?" + "&".join(f"ids={i}" for i in range(101)), None, 422, "ids"),
        ("POST", "/console/popular", {"city_id": 0, "filters": {"tags": [400]}}, 422, "filters.tags.0"),
        ("POST", "/console/versions/other/places", {"user_id": 1}, 404, "version other is not loaded"),
        ("GET", "/console/queries/anything", None, 404, "there is no ready query anything"),
        ("GET", "/console/reports/world.html", None, 404, "there is no report world.html"),
        ("GET", "/console/reports/../secret", None, 404, ""),
        ("POST", "/console/publish", {"version": "x"}, 403, "operating over HTTP is off"),
        ("POST", "/console/rollback", None, 403, "operating over HTTP is off"),
    ],
)
def test_what_is_refused(client: TestClient, method: str, path: str, body: object, status: int, said: str):
    answer = client.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["detail"]
    assert answer.headers["content-type"] == "application/problem+json"


def test_another_version_that_is_loaded_answers(client: TestClient):
    version = client.get("/console/about").json()["model_version"]
    refused = client.post(f"/console/versions/{version}/places", json={"user_id": 1})
    assert refused.status_code == 404, "this one's parts were made by hand: it is not loaded to stay"
    assert client.get("/console/versions").json()["versions"] == []
    found = client.get("/console/operations").json()
    assert found["severity"] is None
    assert found["reports"] == []
    assert client.get("/console/oracle?user_id=1").json()["there"] is False


def test_a_query_without_data_says_what_is_missing(client: TestClient):
    answer = client.get("/console/queries/cities").json()
    assert answer["rows"] == []
    assert "places is not in the lake: run `recsys validate`" in answer["missing"]


def test_a_command_that_does_not_end_is_killed(tmp_path: Path):
    settings = Settings(data_dir=tmp_path, _env_file=None)
    with pytest.raises(JobTooSlow, match="recsys sql did not end"):
        asyncio.run(run_command(settings, "sql", "select 1", deadline_s=0.01))


def test_few_may_wait_for_their_turn():
    async def run() -> list[int]:
        turns, done, go = Turns("busy", most=2), [], asyncio.Event()

        async def one(n: int) -> None:
            async with turns.take():
                await go.wait()
                done.append(n)

        tasks = [asyncio.create_task(one(n)) for n in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(JobRefused, match="busy"):
            async with turns.take():
                pass
        go.set()
        await asyncio.gather(*tasks)
        async with turns.take():
            done.append(2)
        return done

    assert asyncio.run(run()) == [0, 1, 2]
