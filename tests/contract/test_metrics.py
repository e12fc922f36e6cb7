"""GET /metrics as Prometheus meets it: every family, what it counts, and that no request makes a series of its own."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as families

from api.app import create_app
from api.state import State
from recsys.impressions import Impressions
from recsys.recommend.fallback import DEGRADATIONS
from recsys.settings import Settings
from tests.conftest import ROOT
from tests.live import fill_ties, make_state, open_store, wall
from tests.parts import NOW

VIEW = {"id": "e-1", "user_id": 4, "place_id": 9, "kind": "view"}


@pytest.fixture(scope="module")
def state(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> State:
    """Ranking reads an online store that knows nothing of a place; events are folded into it."""
    from recsys.features import LiveStates

    folder, url = tmp_path_factory.mktemp("metrics"), redis_url.removesuffix("/0") + "/7"
    store = open_store(url, folder)
    store.apply()
    fill_ties(LiveStates(store))
    store.close()
    made = make_state(folder, url)
    made.impressions = Impressions(
        folder / "impressions", "test", keep=timedelta(days=1), wall=wall, every_s=0.01, most_waiting=25
    )
    return made


@pytest.fixture(scope="module")
def client(state: State) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(), ready=state), raise_server_exceptions=False) as made:
        yield made
    state.impressions.close()


def scrape(client: TestClient) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Values by series, by name of the sample."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    out: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in families(answer.text):
        for sample in family.samples:
            series = out.setdefault(sample.name, {})
            key = tuple(sorted(sample.labels.items()))
            assert key not in series, f"twice: {sample}"
            series[key] = sample.value
    return out


def value(found: dict, name: str, **labels: str) -> float:
    return found.get(name, {}).get(tuple(sorted(labels.items())), 0.0)


@contextmanager
def without_features(client: TestClient, state: State) -> Iterator[None]:
    """Ranking reads nothing meanwhile; whole again when this ends."""
    state.engine.features.down = True
    try:
        yield
    finally:
        state.engine.features.down = False
        deadline = time.monotonic() + 10
        while client.get("/ready").json()["status"] != "ready":  # the breaker lets one call try, after a second
            assert time.monotonic() < deadline


def test_requests_are_counted_by_template_method_and_status(client: TestClient):
    before = scrape(client)
    for user in range(5):
        assert client.get(f"/users/{user}/blocks").status_code == 200
    for path in ("/a", "/b", "/c/d"):
        assert client.get(path).status_code == 404
    assert client.post("/recommend/places", json={"user_id": 10**6}).status_code == 404
    assert client.post("/recommend/places", json={"user_id": "x" * 300}).status_code == 422
    assert client.request("BREW", "/health").status_code == 405
    after = scrape(client)
    name = "recsys_request_seconds_count"

    def more(method: str, route: str, status: str) -> float:
        labels = {"method": method, "route": route, "status": status}
        return value(after, name, **labels) - value(before, name, **labels)

    assert more("GET", "/users/{user_id}/blocks", "200") == 5
    assert more("GET", "none", "404") == 3
    assert more("POST", "/recommend/places", "404") == more("POST", "/recommend/places", "422") == 1
    assert more("other", "/health", "405") == 1
    assert more("GET", "/metrics", "200") == 1, "the one before"
    assert "BREW" not in str(after[name])


def test_a_latency_is_the_logs_and_lies_in_its_bucket(client: TestClient, capsys: pytest.CaptureFixture[str]):
    labels = {"method": "POST", "route": "/recommend/people", "status": "200"}
    client.post("/recommend/people", json={"user_id": 4})
    before = scrape(client)
    capsys.readouterr()
    client.post("/recommend/people", json={"user_id": 4})
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    after = scrape(client)
    spent = value(after, "recsys_request_seconds_sum", **labels) - value(before, "recsys_request_seconds_sum", **labels)
    assert spent * 1e3 == pytest.approx(line["ms"], abs=0.01)
    buckets = {
        float(key["le"]): count - value(before, "recsys_request_seconds_bucket", **key)
        for series, count in after["recsys_request_seconds_bucket"].items()
        if (key := dict(series)).items() >= labels.items()
    }
    assert sum(0.001 <= bound <= 0.1 for bound in buckets) >= 12, "1 to 100 ms are told apart"
    assert {bound: n for bound, n in buckets.items() if n} == {b: 1 for b in buckets if b >= spent}


def test_stages_add_up_to_less_than_the_request(client: TestClient):
    before = scrape(client)
    for path, body in (("places", {"user_id": 4}), ("people", {"user_id": 4}), ("groups", {"user_ids": [4, 1, 7]})):
        for _ in range(3):
            assert client.post(f"/recommend/{path}", json=body).status_code == 200
    after = scrape(client)
    for path in ("places", "people", "groups"):
        route = f"/recommend/{path}"
        spent = 0.0
        for name in ("user", "retrieve", "features", "score", "policy", "profiles", "explain"):
            labels = {"route": route, "stage": name}
            count = "recsys_stage_seconds_count"
            assert value(after, count, **labels) - value(before, count, **labels) == 3, (path, name)
            total = "recsys_stage_seconds_sum"
            spent += value(after, total, **labels) - value(before, total, **labels)
        labels = {"method": "POST", "route": route, "status": "200"}
        total = "recsys_request_seconds_sum"
        assert 0 < spent < value(after, total, **labels) - value(before, total, **labels)


def test_answers_have_scores_and_ages(client: TestClient):
    before = scrape(client)
    for kind, path, body in (
        ("place", "places", {"user_id": 4, "top_k": 7}), ("person", "people", {"user_id": 4, "top_k": 6}),
        ("group", "groups", {"user_ids": [4, 1], "top_k": 5}),
    ):  # fmt: skip
        found = client.post(f"/recommend/{path}", json=body).json()["recommendations"]
        scores = [r["combined_score" if kind == "person" else "score"] for r in found]
        after, labels = scrape(client), {"kind": kind, "model_version": "test-1"}
        assert value(after, "recsys_score_count", **labels) - value(before, "recsys_score_count", **labels) == len(
            scores
        )
        more = value(after, "recsys_score_sum", **labels) - value(before, "recsys_score_sum", **labels)
        assert more == pytest.approx(sum(scores))
    ages = "recsys_features_age_seconds_count"
    assert value(after, ages) - value(before, ages) == 3


def test_what_the_parts_count_is_read_from_them(client: TestClient, state: State):
    found = scrape(client)
    assert set(found["recsys_degraded_answers_total"]) == {(("what", w),) for w in (*DEGRADATIONS, "user_vector")}
    assert value(found, "recsys_ready") == 1
    assert value(found, "recsys_model_version", model_version="test-1", role="live") == 1
    assert value(found, "recsys_breaker", part="online_store", state="closed") == 1
    degraded = value(found, "recsys_degraded_answers_total", what="online_features:last_known")
    with without_features(client, state):
        for _ in range(4):
            assert client.post("/recommend/places", json={"user_id": 4}).status_code == 200
        found = scrape(client)
    assert value(found, "recsys_degraded_answers_total", what="online_features:last_known") == degraded + 4
    assert value(found, "recsys_breaker", part="online_store", state="closed") == 0
    assert value(found, "recsys_breaker", part="index", state="closed") == 1


def test_events_and_impressions_are_counted(client: TestClient, state: State):
    before = scrape(client)
    assert client.post("/events", json={"events": [VIEW, {**VIEW, "id": "e-2"}, VIEW]}).json()["online"]
    after = scrape(client)
    for name, more in (("recsys_events_taken_total", 2), ("recsys_events_duplicate_total", 1)):
        assert value(after, name) - value(before, name) == more
    assert {value(after, "recsys_events_waiting", **{"for": what}) for what in ("log", "online_store")} == {0}
    client.post("/recommend/places", json={"user_id": 4, "top_k": 26})  # more than may wait
    assert value(scrape(client), "recsys_impression_answers_dropped_total") == state.impressions.dropped >= 1
    client.post("/recommend/places", json={"user_id": 4, "top_k": 3})
    state.impressions.close()
    assert value(scrape(client), "recsys_impression_rows_written_total") == state.impressions.written >= 3


def test_a_request_says_in_the_log_who_answered_and_without_what(
    client: TestClient, state: State, capsys: pytest.CaptureFixture[str]
):
    def logged(path: str, body: dict) -> dict:
        capsys.readouterr()
        client.post(path, json=body)
        return next(json.loads(line) for line in capsys.readouterr().out.splitlines() if '"request"' in line)

    line = logged("/recommend/places", {"user_id": 4})
    assert (line["route"], line["status"], line["model_version"]) == ("/recommend/places", 200, "test-1")
    assert "degraded" not in line
    with without_features(client, state):
        line = logged("/recommend/places", {"user_id": 4})
    assert "online_features:last_known" in line["degraded"]
    capsys.readouterr()
    client.get("/health")
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert "model_version" not in line


def test_nothing_is_published_yet(tmp_path: Path):
    with TestClient(create_app(Settings(data_dir=tmp_path), ready=State(None, lambda: NOW))) as client:
        assert client.post("/recommend/places", json={"user_id": 4}).status_code == 503
        found = scrape(client)
    assert value(found, "recsys_ready") == 0
    assert "recsys_model_version" not in found
    route = {"method": "POST", "route": "/recommend/places", "status": "503"}
    assert value(found, "recsys_request_seconds_count", **route) == 1


def test_two_apps_of_one_process_do_not_share_figures(tmp_path: Path, client: TestClient):
    with TestClient(create_app(Settings(data_dir=tmp_path), ready=State(None, lambda: NOW))) as other:
        other.get("/health")
        found = scrape(other)
    assert value(found, "recsys_request_seconds_count", method="GET", route="/health", status="200") == 1


def test_one_of_several_workers_says_which_in_every_series(tmp_path: Path):
    app = create_app(Settings(data_dir=tmp_path), ready=State(None, lambda: NOW), worker=3)
    with TestClient(app) as client:
        client.get("/health")
        answer = client.get("/metrics")
        found = scrape(client)
    assert answer.headers["connection"] == "close", "the next time may be another worker's turn"
    assert all(("worker", "3") in series for values in found.values() for series in values)


def test_open_metrics_is_spoken_where_it_is_asked_for(client: TestClient):
    answer = client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert {family.name for family in open_metrics(answer.text)} >= {"recsys_request_seconds", "recsys_score"}


def test_every_metric_is_documented(client: TestClient):
    page = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    families_there = {f.name for f in families(client.get("/metrics").text) if f.name.startswith("recsys_")}
    counters = {f.name for f in families(client.get("/metrics").text) if f.type == "counter"}
    named = set(re.findall(r"^\| `(recsys_\w+)", page, flags=re.MULTILINE))
    assert named == {f"{name}_total" if name in counters else name for name in families_there}


def test_the_documented_scrape_and_alerts_are_valid_and_name_what_there_is(client: TestClient):
    page = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    scrape_config, rules = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL))
    (job,) = scrape_config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["127.0.0.1:8000"]}]
    assert scrape_config["rule_files"] == ["recsys-rules.yml"]
    assert client.post("/recommend/places", json={"user_id": 4}).status_code == 200
    there = {s.name: set(s.labels) for f in families(client.get("/metrics").text) for s in f.samples}
    (group,) = rules["groups"]
    assert [rule["alert"] for rule in group["rules"]] == ["RecsysErrors", "RecsysSlow", "RecsysDegraded"]
    for rule in group["rules"]:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+m", rule["for"])
        assert rule["expr"].count("(") == rule["expr"].count(")")
        named = re.findall(r"(recsys_\w+)(?:\{(.*?)\})?", rule["expr"])
        assert named
        for name, labels in named:
            assert set(re.findall(r"(\w+)[=!]~?", labels)) <= there[name], name
