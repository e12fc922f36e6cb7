"""POST /events as an application team meets it: fields, what is refused and how, limits."""

import json
import re
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.dataset import Clock, clock_of
from api.middleware import MAX_BODY_BYTES, MAX_EVENTS_BYTES
from api.schemas import MAX_EVENTS, EventIn, EventsRequest, EventsResponse
from api.state import State
from recsys.errors import EventLogUnavailable, FeatureStoreUnavailable, UnknownUser
from recsys.events import KINDS, Event, EventLog, Intake
from recsys.recommend.identity import SourceIds
from recsys.settings import Settings
from tests.conftest import ROOT
from tests.contract.test_api import assert_problem
from tests.parts import N_PLACES, N_USERS, NOW, make_engine

VIEW = {"id": "e-1", "user_id": 4, "place_id": 9, "kind": "view"}


class Logged:
    """A folder with a real log and no online store but a word: up or not."""

    def __init__(self, log: EventLog) -> None:
        self.log, self.online = log, True

    def append(self, events):
        return self.log.append(events)

    def fold(self) -> int:
        if not self.online:
            raise FeatureStoreUnavailable("the online store at 127.0.0.1:1 did not answer")
        return self.log.last


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory):
    return make_engine(tmp_path_factory.mktemp("index"))


@pytest.fixture
def folder(tmp_path: Path) -> Logged:
    return Logged(EventLog(tmp_path / "log"))


@pytest.fixture
def state(engine, folder: Logged) -> State:
    features, index = engine.features, engine.index
    features.down, features.close = False, lambda: None

    async def stay() -> None:
        """The engine is the next test's too."""

    index.close = stay
    return State(engine, lambda: NOW, events=Intake(folder))


@pytest.fixture
def client(state: State) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(), ready=state), raise_server_exceptions=False) as made:
        yield made


def send(client: TestClient, *events: dict):
    return client.post("/events", json={"events": list(events)})


def test_an_answer_says_what_became_of_every_event(client: TestClient, folder: Logged):
    answer = send(client, VIEW, {**VIEW, "id": "e-2", "kind": "attend"}, {**VIEW, "id": "e-3", "user_id": 10**6}, VIEW)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body.pop("request_id") == answer.headers["x-request-id"]
    assert body == {
        "accepted": 2,
        "duplicates": 1,
        "rejected": [{"index": 2, "id": "e-3", "reason": "there is no user 1000000"}],
        "online": True,
        "model_version": "test-1",
    }
    view, attend = folder.log.read()
    assert (view.seq, view.id, view.kind, view.user_id, view.place_id) == (1, "e-1", "view", 4, 9)
    assert (view.at_us, view.dwell_s, attend.dwell_s) == (int(NOW.timestamp()) * 10**6, 30, 150)
    assert send(client, VIEW).json() | {"request_id": ""} == {
        "accepted": 0, "duplicates": 1, "rejected": [], "online": True, "model_version": "test-1", "request_id": "",
    }  # fmt: skip


def test_when_it_happened_and_how_long_it_took(client: TestClient, folder: Logged):
    at = NOW - timedelta(days=1)
    local = {"timestamp": at.replace(tzinfo=None).isoformat() + "+07:00", "dwell_seconds": 12.3}
    assert send(client, {**VIEW, **local}).json()["accepted"] == 1
    assert send(client, {**VIEW, "id": "e-2", "timestamp": at.replace(tzinfo=None).isoformat()}).json()["accepted"] == 1
    assert send(client, {**VIEW, "id": "e-3", "timestamp": at.isoformat().replace("+00:00", "Z")}).status_code == 200
    there, utc, zulu = folder.log.read()
    assert there.at_us == int((at - timedelta(hours=7)).timestamp() * 1e6)
    assert (there.time_of_day, utc.time_of_day) == (3, 3), "the hour is that of the place: midnight in both"
    assert there.day_of_week == utc.day_of_week == 1, "a Sunday"
    assert utc.at_us == int(at.timestamp() * 1e6) == zulu.at_us - 1
    assert round(there.dwell_s, 4) == 12.3


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "events"),
        ({"events": []}, "events"),
        ({"events": [VIEW], "more": 1}, "more"),
        (VIEW, "events"),
        ({"events": [{**VIEW, "id": i} for i in range(MAX_EVENTS + 1)]}, "events"),
        ({"events": [VIEW, {**VIEW, "id": ""}]}, "events.1.id"),
        ({"events": [{**VIEW, "id": 7}]}, "events.0.id"),
        ({"events": [{**VIEW, "id": "x" * 201}]}, "events.0.id"),
        ({"events": [{**VIEW, "kind": "visit"}]}, "events.0.kind"),
        ({"events": [{**VIEW, "user_id": -1}]}, "events.0.user_id"),
        ({"events": [{**VIEW, "user_id": True}]}, "events.0.user_id"),
        ({"events": [{**VIEW, "place_id": 1.5}]}, "events.0.place_id"),
        ({"events": [{**VIEW, "timestamp": 1711324800}]}, "events.0.timestamp"),
        ({"events": [{**VIEW, "timestamp": "1711324800"}]}, "events.0.timestamp"),
        ({"events": [{**VIEW, "timestamp": "2024-03-25"}]}, "events.0.timestamp"),
        ({"events": [{**VIEW, "timestamp": "2024-13-25T00:00:00Z"}]}, "events.0.timestamp"),
        ({"events": [{**VIEW, "timestamp": "9999-12-31T23:59:59-14:00"}]}, "events.0.timestamp"),
        ({"events": [{**VIEW, "timestamp": "0001-01-01T00:00:00+14:00"}]}, "events.0.timestamp"),
        ({"events": [{**VIEW, "dwell_seconds": -0.1}]}, "events.0.dwell_seconds"),
        ({"events": [{**VIEW, "dwell_seconds": 86_401}]}, "events.0.dwell_seconds"),
        ({"events": [{**VIEW, "dwell_seconds": "3"}]}, "events.0.dwell_seconds"),
        ({"events": [{**VIEW, "rating": 5}]}, "events.0.rating"),
    ],
)
def test_a_field_out_of_its_range_is_422_and_named_and_nothing_is_taken(
    client: TestClient, folder: Logged, body: dict, field: str
):
    several = len(body.get("events", ())) == MAX_EVENTS + 1
    problem = assert_problem(client.post("/events", json=body), 422)
    assert field in [e["field"] for e in problem["errors"]]
    if not several:
        assert problem["detail"].startswith(f"{problem['errors'][0]['field']}: ")
    assert folder.log.refresh() == 0


def test_a_moment_ahead_is_now_and_one_too_far_says_what_was_found(client: TestClient, folder: Logged):
    assert send(client, {**VIEW, "timestamp": (NOW + timedelta(minutes=5)).isoformat()}).json()["accepted"] == 1
    assert next(folder.log.read()).at_us == int(NOW.timestamp() * 1e6)
    ahead, old = NOW + timedelta(minutes=6), NOW - timedelta(days=91)
    for moment, said in ((ahead, "at most 5 minutes after now"), (old, "at most 90 days ago")):
        problem = assert_problem(send(client, {**VIEW, "id": "e-2", "timestamp": moment.isoformat()}), 422)
        assert [e["field"] for e in problem["errors"]] == ["events.0.timestamp"]
        assert said in problem["detail"]
        assert f"(got {moment.isoformat()})" in problem["detail"]


def test_of_several_events_the_good_ones_are_taken(client: TestClient, folder: Logged):
    answer = send(
        client,
        {**VIEW, "id": "a", "timestamp": (NOW - timedelta(days=91)).isoformat()},
        {**VIEW, "id": "b"},
        {**VIEW, "id": "c", "place_id": N_PLACES},
        {**VIEW, "id": "d", "user_id": "somebody"},
        {**VIEW, "id": "e", "user_id": N_USERS - 1},
    )
    body = answer.json()
    assert (body["accepted"], [(r["index"], r["id"]) for r in body["rejected"]]) == (2, [(0, "a"), (2, "c"), (3, "d")])
    reasons = [r["reason"] for r in body["rejected"]]
    assert reasons[0].startswith("timestamp: must be at most 90 days ago")
    assert reasons[1] == f"there is no place {N_PLACES}"
    assert reasons[2].startswith("there is no user 'somebody' in the live version")
    assert [e.id for e in folder.log.read()] == ["b", "e"], "who joined after the version was made counts too"


@pytest.mark.parametrize("unknown", [{"user_id": 10**6}, {"place_id": 2**63 - 1}, {"user_id": "somebody"}])
def test_the_only_event_of_somebody_unknown_is_404(client: TestClient, folder: Logged, unknown: dict):
    detail = assert_problem(send(client, {**VIEW, **unknown}), 404)["detail"]
    assert detail.startswith("there is no ")
    assert folder.log.refresh() == 0


def test_when_none_of_several_is_good_nothing_is_taken(client: TestClient, folder: Logged):
    body = send(client, *({**VIEW, "id": str(i), "user_id": 10**6} for i in range(3))).json()
    assert (body["accepted"], body["duplicates"], len(body["rejected"])) == (0, 0, 3)
    assert folder.log.refresh() == 0


def test_the_sources_own_ids(state: State, folder: Logged):
    ids = pa.table({"id": [3, 4, 5], "source": ["nyc", "rome", "rome"], "source_id": ["7", "7", "u-5"]})
    assert state.engine is not None
    state.engine = replace(state.engine, users=SourceIds("user", ids, UnknownUser))
    with TestClient(create_app(Settings(), ready=state)) as client:
        assert send(client, {**VIEW, "user_id": "u-5"}).json()["accepted"] == 1
        assert send(client, {**VIEW, "id": "e-2", "user_id": "nyc:7"}).json()["accepted"] == 1
        problem = assert_problem(send(client, {**VIEW, "id": "e-3", "user_id": "7"}), 422)
        assert [e["field"] for e in problem["errors"]] == ["events.0.user_id"]
    assert [e.user_id for e in folder.log.read()] == [5, 3]


def test_a_thousand_events_fit_and_a_larger_body_is_413(client: TestClient, folder: Logged):
    events = [{**VIEW, "id": f"{i:036d}", "dwell_seconds": 123.456} for i in range(MAX_EVENTS)]
    body = json.dumps({"events": events})
    assert MAX_BODY_BYTES < len(body) < MAX_EVENTS_BYTES
    assert send(client, *events).json()["accepted"] == MAX_EVENTS
    problem = assert_problem(client.post("/events", content=b" " * (MAX_EVENTS_BYTES + 1)), 413)
    assert problem["detail"] == f"the body must be at most {MAX_EVENTS_BYTES} bytes"


def test_while_the_online_store_is_down_events_are_kept(client: TestClient, folder: Logged, state: State):
    assert state.engine is not None
    folder.online = False
    assert send(client, VIEW).json()["online"] is False
    assert send(client, {**VIEW, "id": "e-2"}).json() | {"request_id": ""} == {
        "accepted": 1, "duplicates": 0, "rejected": [], "online": False, "model_version": "test-1", "request_id": "",
    }  # fmt: skip
    assert folder.log.refresh() == 2


def test_a_log_that_cannot_be_written_is_503_and_says_when_to_come_back(
    client: TestClient, folder: Logged, monkeypatch: pytest.MonkeyPatch
):
    def refuse(_: object) -> list[bool]:
        raise EventLogUnavailable("/somewhere/secret cannot be written (got no space left)")

    monkeypatch.setattr(folder, "append", refuse)
    answer = send(client, VIEW)
    problem = assert_problem(answer, 503)
    assert answer.headers["retry-after"] == "1"
    assert problem["detail"] == "the event log did not take the events in time"


def test_what_nobody_foresaw_is_500_and_the_next_event_is_taken(
    client: TestClient, folder: Logged, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(folder, "append", lambda _: 1 / 0)
        assert_problem(send(client, VIEW), 500)
    assert send(client, VIEW).json()["accepted"] == 1


def test_the_documented_example_is_valid_and_every_field_is_explained():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    (body,) = re.findall(r"POST /events\n(\{.*?\})\n```", page, flags=re.DOTALL)
    assert len(EventsRequest.model_validate_json(body).events) == 2
    for field in (*EventIn.model_fields, *EventsResponse.model_fields, *KINDS):
        assert f"`{field}`" in page


class TestClock:
    """A synthetic world's time goes on from its end, and never back."""

    def clock(self, log: EventLog, **changes: object):
        said = {"synthetic": True, "until": NOW.isoformat()}
        settings, artifact = Settings(now=changes.pop("now", None)), Namespace(manifest=said | changes)
        return clock_of(settings, artifact, log, time.monotonic_ns())

    def test_it_begins_at_the_end_of_the_data_and_ticks(self, tmp_path: Path):
        now = self.clock(EventLog(tmp_path / "log"))
        first = now()
        assert NOW <= first < NOW + timedelta(minutes=1)
        moments = {now() for _ in range(1_000)}
        assert max(moments) > first
        assert first.tzinfo is not None

    def test_it_begins_after_the_last_event_and_where_it_was_set(self, tmp_path: Path):
        log, late = EventLog(tmp_path / "log"), NOW + timedelta(hours=3)
        said = {"kind": "view", "user_id": 1, "place_id": 1, "dwell_s": None, "now": late}
        log.append([Event.made(id="a", moment=late, **said), Event.made(id="b", moment=NOW, **said)])
        again = EventLog(tmp_path / "log")
        again.refresh()
        assert self.clock(again)() > late
        set_to = datetime(2024, 3, 26)  # noqa: DTZ001 - as a setting without an offset is read
        assert (
            set_to.replace(tzinfo=UTC)
            <= self.clock(again, now=set_to)()
            < set_to.replace(tzinfo=UTC) + timedelta(minutes=1)
        )

    def test_own_data_have_the_wall_clock(self, tmp_path: Path):
        now = self.clock(EventLog(tmp_path / "log"), synthetic=False)
        assert abs(now() - datetime.now(UTC)) < timedelta(seconds=10)
        now.at_least(datetime.now(UTC) + timedelta(days=1))
        assert abs(now() - datetime.now(UTC)) < timedelta(seconds=10)

    def test_workers_agree_and_a_later_version_moves_it_on_but_never_back(self):
        since = time.monotonic_ns() - 60 * 10**9  # one minute ago
        one, another = Clock(NOW, since), Clock(NOW, since)
        assert NOW + timedelta(minutes=1) <= one() <= another() <= one() < NOW + timedelta(minutes=2)
        one.at_least(NOW)
        assert one() - another() < timedelta(seconds=1)
        one.at_least(NOW + timedelta(days=7))
        assert NOW + timedelta(days=7) <= one() < NOW + timedelta(days=7, minutes=1)


def test_before_the_first_publish_and_without_a_log_events_are_503(engine):
    with TestClient(create_app(Settings(), ready=State(None, lambda: NOW))) as client:
        assert "recsys publish" in assert_problem(send(client, VIEW), 503)["detail"]
    with TestClient(create_app(Settings(), ready=State(engine, lambda: NOW))) as client:
        assert "takes no events" in assert_problem(send(client, VIEW), 503)["detail"]
