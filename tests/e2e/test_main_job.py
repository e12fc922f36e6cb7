"""The main job at 300 x 300, as a user runs it: commands, a served API, `feast` typed by hand, Ctrl-C, and kill -9."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest
import redis

from recsys.lake import Lake
from recsys.schemas import TABLES
from tests.conftest import ROOT
from tests.installed import Installation, install
from tests.reasons import NO_REASON, Tables

STAGES = ("generate", "validate", "materialize", "train", "evaluate", "publish")


@pytest.fixture(scope="module")
def client(installed: Installation) -> Iterator[httpx.Client]:
    base = f"http://127.0.0.1:{installed.env['RECSYS_PORT']}"
    server = subprocess.Popen(
        [sys.executable, "-m", "jobs", "serve"],
        env=installed.env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        with httpx.Client(base_url=base, timeout=10) as made:
            wait_ready(made, server)
            yield made
    finally:
        server.send_signal(signal.SIGINT)
        output, _ = server.communicate(timeout=30)
    assert server.returncode == 0, output[-3000:]


def wait_ready(client: httpx.Client, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None, f"serve ended early: {server.stdout.read()[-3000:]}"
        try:
            if client.get("/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "not ready after 60 s"
        time.sleep(0.1)


def test_every_stage_left_a_report(installed: Installation):
    for stage in (*STAGES, "pipeline"):
        report = installed.report(stage)
        assert report["job"] == stage
        assert report["seconds"] > 0
        assert report["peak_rss_mb"] > 0


def test_tables_have_their_contract_and_nothing_was_lost(installed: Installation):
    for name, table in TABLES.items():
        landed = pq.read_table(installed.data / "landing" / f"{name}.parquet")
        accepted = pq.read_table(installed.data / "lake" / f"{name}.parquet")
        assert accepted.schema.equals(table.arrow), name
        assert accepted.equals(landed), name


def test_status_and_sql_tell_what_is_there(installed: Installation):
    status = json.loads(installed.run("status", "--json").stdout)
    text = json.dumps(status)
    assert installed.report("publish")["version"] in text
    rows = json.loads(installed.run("sql", "select count(*) as n from users", "--format", "json").stdout)
    assert rows == [{"n": 300}]
    refused = installed.run("sql", "drop view users", check=False)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr


def test_the_doctor_finds_nothing_wrong_and_touches_nothing(client: httpx.Client, installed: Installation):
    def files() -> dict[str, tuple[int, int]]:
        there = [path for path in installed.data.rglob("*") if path.is_file() and "redis" not in path.parts]
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in there}

    before = files()
    told = json.loads(installed.run("doctor", "--json").stdout)
    assert files() == before
    assert told["errors"] == 0
    found = {check["name"]: check for check in told["checks"]}
    version = client.get("/").json()["model_version"]
    assert version in found["port"]["found"]
    assert version in found["versions"]["found"]
    of_data = ("landing", "features", "registry", "online store", "online features", "versions", "index", "port")
    assert {name: found[name]["state"] for name in of_data} == dict.fromkeys(of_data, "ok"), found
    assert "recsys_request_seconds_count" in client.get("/metrics").text
    assert (installed.data / "artifacts" / version / "places.parquet").exists()


def test_what_could_be_known_lies_below_what_the_oracle_knows(installed: Installation):
    places = installed.report("evaluate")["places"]
    assert places["popularity"]["ndcg"] < places["knowable"]["ndcg"] < places["oracle"]["ndcg"]
    assert places["random"]["ndcg"] < places["model"]["ndcg"] < places["oracle"]["ndcg"]


def test_a_version_that_looks_back_stands_in_a_protocols_table(installed: Installation):
    live = installed.report("publish")["version"]
    back = json.loads(installed.run("train", "--until", "2024-02-26", "--json").stdout)["version"]
    found = json.loads(installed.run("evaluate", "--protocol", "new", "--version", back, "--json").stdout)
    for city, rows in found["cities"].items():
        assert found["cuts"][city] > "2024-02-26"
        assert 0 < rows["model"]["recall"] <= 1, city
        assert rows["model"].keys() == rows["popularity"].keys()
    refused = installed.run("evaluate", "--protocol", "new", "--version", live, check=False)
    assert refused.returncode == 1
    said = " ".join(refused.stderr.split())
    assert f"--version {live} knows what happened up to 2024-03-25, and the test of" in said
    assert json.loads(installed.run("publish", "--json").stdout)["version"] == live, (
        "the one that looks back is not newest"
    )
    wrong = installed.run("train", "--until", "2025-01-01", check=False)
    assert "--until must be a midnight, UTC, after 2024-01-01 and up to 2024-03-25" in " ".join(wrong.stderr.split())


def test_places_of_the_asked_city_only_ten_distinct_and_the_same_again(client: httpx.Client, installed: Installation):
    places = {p["place_id"]: p for p in pq.read_table(installed.data / "lake" / "places.parquet").to_pylist()}
    request = {"user_id": 5, "city_id": 2, "top_k": 10}
    answer = client.post("/recommend/places", json=request)
    assert answer.status_code == 200, answer.text
    found = answer.json()["recommendations"]
    in_city = [p for p in places.values() if p["city_id"] == 2]
    assert len(found) == min(10, len(in_city))
    assert len({r["place_id"] for r in found}) == len(found)
    assert {places[r["place_id"]]["city_id"] for r in found} == {2}
    assert [r["score"] for r in found] == sorted((r["score"] for r in found), reverse=True)
    assert all(r["explanations"] for r in found)
    assert answer.json()["model_version"] == installed.report("publish")["version"]
    again = client.post("/recommend/places", json=request).json()["recommendations"]
    assert [(r["place_id"], r["explanations"]) for r in again] == [(r["place_id"], r["explanations"]) for r in found]
    assert [r["score"] for r in again] == pytest.approx([r["score"] for r in found], abs=1e-5)


def test_people_without_oneself_and_with_both_probabilities(client: httpx.Client, installed: Installation):
    users = {u["user_id"]: u for u in pq.read_table(installed.data / "lake" / "users.parquet").to_pylist()}
    answer = client.post("/recommend/people", json={"user_id": 5, "top_k": 10, "target_place_id": 3})
    assert answer.status_code == 200, answer.text
    found = answer.json()["recommendations"]
    assert found
    assert 5 not in {r["user_id"] for r in found}
    assert {users[r["user_id"]]["home_city_id"] for r in found} == {users[5]["home_city_id"]}
    for r in found:
        assert r["combined_score"] == pytest.approx(0.7 * r["compat_score"] + 0.3 * r["attend_prob"], abs=1e-5)


def test_a_thousand_reasons_are_true_in_the_tables(client: httpx.Client, installed: Installation):
    version = installed.report("publish")["version"]
    manifest = json.loads((installed.data / "artifacts" / version / "manifest.json").read_text())
    of_places, of_people = [], []
    for user_id in range(0, 300, 5):
        for kind, said in (("places", of_places), ("people", of_people)):
            answer = client.post(f"/recommend/{kind}", json={"user_id": user_id, "top_k": 10}).json()
            about = {"places": "place_id", "people": "user_id"}[kind]
            said += [(e, user_id, r[about]) for r in answer["recommendations"] for e in r["explanations"]]
    assert len(of_places) + len(of_people) >= 1_000
    with Lake(installed.data) as lake:
        tables = Tables(lake, datetime.fromisoformat(manifest["until"]))
        assert [s for s in of_places if not tables.true_of_place(*s, friendships=False)] == []
        assert [s for s in of_people if not tables.true_of_person(*s)] == []
        told = [s for s in of_places if s[0] not in NO_REASON]
        wrong = [s for s in told if not tables.true_of_place(s[0], (s[1] + 7) % 300, s[2], friendships=False)]
    assert len(wrong) > len(told) / 4, "said of others, many are false: the check can tell"


def test_wrong_requests_are_refused_in_one_shape(client: httpx.Client):
    for body, status in (
        ({"user_id": 10**6}, 404), ({"user_id": 5, "time_slot": 6}, 422), ({"user_id": 5, "city_id": 99}, 404),
        ({"user_id": 5, "desired_categories": [6]}, 422), ({"user_id": 5, "nonsense": 1}, 422), ({}, 422),
    ):  # fmt: skip
        answer = client.post("/recommend/places", json=body)
        assert answer.status_code in {status, 422 if status == 404 and "city_id" in body else status}, answer.text
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


def registered(feast: str, repo: Path, env: dict[str, str]) -> dict[str, set[str]]:
    """Kind of object -> the names Feast's own command lists (the first column, below the heading)."""
    names = {}
    for kind in ("entities", "feature-views", "feature-services"):
        done = subprocess.run([feast, kind, "list"], cwd=repo, env=env, capture_output=True, text=True, check=True)
        names[kind] = {line.split()[0] for line in done.stdout.splitlines()[1:] if line.strip()}
    return names


def test_feast_typed_by_hand_reaches_the_embedded_redis(installed: Installation):
    feast = str(Path(sys.executable).parent / "feast")
    repo = installed.root / "feature_repo"
    until = installed.report("materialize")["until"][:19]
    before = registered(feast, repo, installed.env)
    assert "rank_places_v1" in before["feature-services"]
    for command in (["apply"], ["materialize-incremental", until], ["materialize", "2024-03-01T00:00:00", until]):
        done = subprocess.run(
            [feast, *command], cwd=repo, env=installed.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert registered(feast, repo, installed.env) == before, "typed by hand or run by the job: the same registry"
    with redis.Redis(port=installed.redis_port) as server:
        assert sum(1 for _ in server.scan_iter("*user_id*recsys")) >= 300


def test_a_store_that_is_gone_is_done_without_and_comes_back_with_its_data(
    client: httpx.Client, installed: Installation
):
    before = client.post("/recommend/places", json={"user_id": 7}).json()["recommendations"]
    installed.run("down")
    gone = client.post("/recommend/places", json={"user_id": 7})
    assert gone.status_code == 200
    assert "online_features:last_known" in gone.json()["degraded"]
    assert {r["place_id"] for r in gone.json()["recommendations"]} == {r["place_id"] for r in before}
    assert client.get("/ready").json()["status"] == "degraded"
    assert client.get("/health").status_code == 200
    installed.run("up")
    deadline = time.monotonic() + 10
    while client.get("/ready").json()["status"] == "degraded":
        assert time.monotonic() < deadline, "it answers again, but is not asked"
    after = client.post("/recommend/places", json={"user_id": 7}).json()["recommendations"]
    assert [r["place_id"] for r in after] == [r["place_id"] for r in before]
    # time went by, and with it how recent things are
    assert [r["score"] for r in after] == pytest.approx([r["score"] for r in before], abs=1e-3)


def test_running_again_changes_nothing(installed: Installation):
    """The second run of every stage leaves the same version, the same lake and the same rows online."""
    version, keys = installed.report("publish")["version"], installed.report("materialize")["keys_online"]
    lake = {t: (installed.data / "lake" / f"{t}.parquet").read_bytes() for t in TABLES}
    for stage in ("generate", "validate", "materialize", "train"):
        installed.run(stage)
    assert {t: (installed.data / "lake" / f"{t}.parquet").read_bytes() for t in TABLES} == lake
    assert installed.report("materialize")["keys_online"] == keys
    assert installed.report("train")["version"] == version


def test_a_killed_stage_run_again_ends_where_an_undisturbed_run_does(installed: Installation, tmp_path: Path):
    """kill -9 in the middle of every stage, at the moment when it works on files, then the pipeline again."""
    other = install(tmp_path, RECSYS_USERS="300", RECSYS_PLACES="300")
    try:
        killed = []
        for stage in STAGES:
            whole = installed.report(stage)["seconds"]
            victim = subprocess.Popen(
                [sys.executable, "-m", "jobs", stage], env=other.env, cwd=ROOT,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            try:  # half of the undisturbed time, counted from the start of the process
                victim.wait(timeout=max(0.5, whole * 0.5 + 1.0))
            except subprocess.TimeoutExpired:
                victim.kill()
                victim.wait()
                killed.append(stage)
            other.run(stage)
        assert len(killed) >= 4, f"too few were still at work half-way: {killed}"
        for name in TABLES:
            same = (installed.data / "lake" / f"{name}.parquet").read_bytes()
            assert (other.data / "lake" / f"{name}.parquet").read_bytes() == same, name
        for view in ("user_activity", "user_place", "user_user"):
            same = pq.read_table(installed.data / "features" / f"{view}.parquet")
            assert pq.read_table(other.data / "features" / f"{view}.parquet").equals(same), view
        assert other.report("materialize")["keys_online"] == installed.report("materialize")["keys_online"]
        assert other.report("train")["version"] == installed.report("train")["version"]
        assert other.report("evaluate")["places"] == installed.report("evaluate")["places"]
        assert other.report("publish")["version"] == installed.report("publish")["version"]
    finally:
        other.run("down", check=False)
