"""Events from the app to the features: durable first, then online, each exactly once, whatever dies on the way."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from jobs import replay
from jobs.landing import event_log
from jobs.report import Report
from recsys import services
from recsys.aggregates import ONLINE_PLACE
from recsys.errors import DataError, EventLogUnavailable, FeatureStoreUnavailable, NotReady
from recsys.events import Event, EventLog, Folder, Intake, Receipt, fold_pending
from recsys.events import folder as folder_module
from recsys.events import intake as intake_module
from recsys.features import LiveStates, Mark
from recsys.lake import Lake
from recsys.settings import Settings
from tests.benchmarks.test_events_speed import sustained
from tests.conftest import ROOT, Filled, free_port
from tests.live import (
    FILLED,
    TIES,
    assert_states,
    fill_ties,
    make_events,
    make_state,
    materialized,
    open_store,
    read_states,
    serving,
    wall,
)
from tests.parts import NOW


def wait_for(condition, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Path:
    """A folder whose registry knows the views."""
    folder = tmp_path_factory.mktemp("registered")
    store = open_store(redis_url, folder)
    store.apply()
    store.close()
    return folder


@pytest.fixture
def own_redis(redis_url: str) -> str:
    """A database of this module's own: what others filled stays as it is."""
    return redis_url.rsplit("/", 1)[0] + "/7"


@pytest.fixture
def live(registered: Path, own_redis: str) -> Iterator[LiveStates]:
    store = open_store(own_redis, registered)
    states = LiveStates(store)
    fill_ties(states)
    yield states
    store.close()


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "log")


@pytest.fixture
def folder(log: EventLog, live: LiveStates) -> Folder:
    return Folder(log, live, now=lambda: NOW, wall=wall)


RNG = np.random.default_rng(11)


class TestFolding:
    def test_states_are_those_of_a_recount_after_every_batch(self, folder: Folder, log: EventLog, live: LiveStates):
        events = make_events(np.random.default_rng(1), 400)
        for first in range(0, 400, 80):
            folder.append(events[first : first + 80])
            assert folder.fold() == log.last == first + 80
            assert_states(live, list(log.read()))
        assert live.mark() == Mark(FILLED, 400)
        assert sum(met[0] for met in _ties(live).values()) > 20, "people did meet"

    def test_sending_everything_twice_changes_nothing(self, folder: Folder, log: EventLog, live: LiveStates):
        events = make_events(np.random.default_rng(2), 150)
        for _ in range(2):
            folder.append(events)
            folder.fold()
        assert log.last == 150
        assert_states(live, list(log.read()))

    @pytest.mark.parametrize("failing", ["write", "join_crowds", "set_mark"])
    @pytest.mark.parametrize("after", [False, True])
    def test_a_fold_that_is_cut_off_anywhere_is_completed_by_the_next(
        self,
        folder: Folder,
        log: EventLog,
        live: LiveStates,
        monkeypatch: pytest.MonkeyPatch,
        failing: str,
        after: bool,
    ):
        """Each write fails in turn, before or after the server took it, in every chunk; more events come meanwhile."""
        monkeypatch.setattr(folder_module, "_CHUNK", 25)
        events = make_events(np.random.default_rng(3), 150)
        real, calls = getattr(live, failing), []

        def dies(*args, **options):
            calls.append(1)
            if len(calls) % 2:
                if after:
                    real(*args, **options)
                raise FeatureStoreUnavailable("it went away")
            return real(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(live, failing, dies)
            for first in range(0, 150, 50):
                folder.append(events[first : first + 50])
                with pytest.raises(FeatureStoreUnavailable):
                    folder.fold()
        assert folder.fold() == 150
        assert_states(live, list(log.read()))

    def test_a_batch_of_which_only_some_states_were_written_is_completed(
        self, folder: Folder, log: EventLog, live: LiveStates, monkeypatch: pytest.MonkeyPatch
    ):
        events = make_events(np.random.default_rng(4), 60)
        folder.append(events)
        write = live.write

        def partly(changed, **options):
            half = [(type(w)(w.view, tuple(c[::2] for c in w.ids)), states[::2], at[::2]) for w, states, at in changed]
            write(half, **options)
            raise FeatureStoreUnavailable("killed in the middle")

        with monkeypatch.context() as patch:
            patch.setattr(live, "write", partly)
            with pytest.raises(FeatureStoreUnavailable):
                folder.fold()
        folder.append(make_events(np.random.default_rng(5), 60, "later-"))
        folder.fold()
        assert_states(live, list(log.read()))

    def test_two_processes_share_a_log_and_a_store(self, folder: Folder, log: EventLog, live: LiveStates):
        other_log = EventLog(log.folder)
        other = Folder(other_log, live, now=lambda: NOW, wall=wall)
        events = make_events(np.random.default_rng(6), 200)
        for i, first in enumerate(range(0, 200, 20)):
            one = (folder, other)[i % 2]
            one.append(events[first : first + 20])
            if i % 3:
                one.fold()
        assert other.fold() == 200
        assert folder.fold() == 200, "it learns of what the other one folded"
        assert_states(live, list(log.read()))

    def test_a_store_that_was_never_filled_takes_nothing(self, folder: Folder, log: EventLog, live: LiveStates):
        live.clear()
        folder.append(make_events(RNG, 10))
        with pytest.raises(NotReady, match="recsys materialize"):
            folder.fold()
        with pytest.raises(NotReady, match="recsys materialize"):
            fold_pending(log, live, NOW, wall())
        assert live.keys() == {}
        fill_ties(live)
        assert fold_pending(log, live, NOW, wall()) == 10
        assert_states(live, list(log.read()))

    def test_a_log_that_lost_what_the_store_knows_is_an_error(self, folder: Folder, log: EventLog, live: LiveStates):
        folder.append(make_events(RNG, 10))
        live.set_mark(Mark(FILLED, 11))
        with pytest.raises(DataError, match=r"was cut or exchanged: the online store knows 11 .*\(got 10\)"):
            folder.fold()

    def test_a_long_log_is_folded_in_turns_with_progress(
        self, folder: Folder, log: EventLog, live: LiveStates, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(folder_module, "_CHUNK", 10)
        monkeypatch.setattr(folder_module, "_AT_ONCE", 30)
        folder.append(make_events(np.random.default_rng(8), 75))
        assert [folder.fold() for _ in range(4)] == [30, 60, 75, 75]
        fill_ties(live)
        seen: list[tuple[int, int]] = []
        assert fold_pending(log, live, NOW, wall(), progress=lambda *p: seen.append(p)) == 75
        assert seen == [*((n, 75) for n in range(10, 71, 10)), (75, 75)]
        assert fold_pending(log, live, NOW, wall()) == 0
        assert_states(live, list(log.read()))


def _ties(live: LiveStates) -> dict:
    return read_states(live, {"user_user": {pair: [0.0] for pair in TIES}})["user_user"]


class TestIntake:
    """Many requests at once, and a store that does not answer."""

    async def run(self, folder: Folder, work):
        troubles: list[str | None] = []
        intake = Intake(folder, lambda e: troubles.append(None if e is None else type(e).__name__))
        intake.start()
        try:
            await work(intake)
        finally:
            await intake.close()
        return troubles

    def test_what_waits_together_is_flushed_together(
        self, folder: Folder, log: EventLog, live: LiveStates, monkeypatch: pytest.MonkeyPatch
    ):
        flushed = []
        append = log.append

        def counted(events):
            flushed.append(len(events))
            return append(events)

        monkeypatch.setattr(log, "append", counted)
        events = make_events(np.random.default_rng(9), 600)

        async def work(intake: Intake) -> None:
            parts = [events[i : i + 3] for i in range(0, 600, 3)]
            receipts = await asyncio.gather(*(intake.submit(part) for part in parts))
            assert receipts == [Receipt(3, 0, online=True)] * 200
            assert await intake.submit(events[:5] + make_events(RNG, 1, "new-")) == Receipt(1, 5, online=True)

        assert asyncio.run(self.run(folder, work)) == []
        assert len(flushed) < 20
        assert_states(live, list(log.read()))

    def test_when_too_many_wait_the_next_are_refused_and_none_is_lost(
        self, folder: Folder, log: EventLog, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(intake_module, "MOST_WAITING", 50)
        events = make_events(RNG, 100)

        async def work(intake: Intake) -> None:
            with log.appending():  # nobody can append for now
                first = asyncio.create_task(intake.submit(events[:40]))
                await asyncio.sleep(0)
                with pytest.raises(EventLogUnavailable, match="at most 50 events may wait"):
                    await intake.submit(events[40:60])
            assert (await first).accepted == 40
            assert (await intake.submit(events[40:60])).accepted == 20

        asyncio.run(self.run(folder, work))
        assert log.last == 60

    def test_a_log_that_cannot_be_written_is_said_to_those_who_sent(
        self, folder: Folder, log: EventLog, monkeypatch: pytest.MonkeyPatch
    ):
        async def work(intake: Intake) -> None:
            with monkeypatch.context() as patch:
                patch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
                with pytest.raises(EventLogUnavailable, match="No space left"):
                    await intake.submit(make_events(RNG, 3))
            assert (await intake.submit(make_events(RNG, 3))).accepted == 3

        asyncio.run(self.run(folder, work))

    def test_while_another_process_fills_the_store_events_are_taken_and_fold_later(
        self, folder: Folder, log: EventLog, live: LiveStates
    ):
        async def work(intake: Intake) -> None:
            with EventLog(log.folder).folding():
                assert await intake.submit(make_events(RNG, 20)) == Receipt(20, 0, online=False)
                before = time.monotonic()
                assert (await intake.submit(make_events(RNG, 20, "b"))).online is False
                assert time.monotonic() - before < 0.2, "nobody waits for the lock twice"
            while intake.trouble is not None:
                await asyncio.sleep(0.01)
            assert live.mark().folded == 40
            assert (await intake.submit(make_events(RNG, 1, "c"))).online is True

        assert asyncio.run(self.run(folder, work)) == ["EventLogUnavailable", None]
        assert_states(live, list(log.read()))

    def test_redis_goes_away_and_comes_back(self, registered: Path, log: EventLog, tmp_path: Path):
        """Down: events are kept. Frozen: events are kept. Back: they are folded, without anybody asking."""
        url, home = f"redis://127.0.0.1:{free_port()}/0", tmp_path / "redis"
        server = services.start(url, home)
        store = open_store(url, registered, timeout_s=2.0)  # the service's own, of a batch
        live = LiveStates(store)
        fill_ties(live)
        folder = Folder(log, live, now=lambda: NOW, wall=wall)
        batches = iter(make_events(np.random.default_rng(i), 30, f"{i}-") for i in range(9))

        async def caught_up(intake: Intake) -> None:
            while intake.trouble is not None:
                await asyncio.sleep(0.01)
            assert live.mark().folded == log.last
            assert_states(live, list(log.read()))

        async def work(intake: Intake) -> None:
            assert (await intake.submit(next(batches))).online is True
            services.stop(url, home)
            for _ in range(3):
                assert await intake.submit(next(batches)) == Receipt(30, 0, online=False)
            process = services.start(url, home)
            await caught_up(intake)
            assert (await intake.submit(next(batches))).online is True
            assert process.pid is not None
            os.kill(process.pid, signal.SIGSTOP)
            try:
                for _ in range(3):
                    before = time.monotonic()
                    assert (await intake.submit(next(batches))).online is False
                    assert time.monotonic() - before < 0.5
            finally:
                os.kill(process.pid, signal.SIGCONT)
            await caught_up(intake)
            assert (await intake.submit(next(batches))).online is True

        try:
            assert asyncio.run(self.run(folder, work)) == [
                "FeatureStoreUnavailable", None, "FeatureStoreUnavailable", None,
            ]  # fmt: skip
            assert log.last == 270
            assert_states(live, list(log.read()))
        finally:
            store.close()
            services.stop(url, home)
        assert server.pid is not None

    def test_what_an_earlier_process_left_is_folded_at_once(self, folder: Folder, log: EventLog, live: LiveStates):
        log.append(make_events(RNG, 40))

        async def work(intake: Intake) -> None:
            while await asyncio.to_thread(lambda: live.mark().folded) < 40:
                await asyncio.sleep(0.01)

        asyncio.run(self.run(folder, work))

    def test_closing_waits_for_what_was_taken(self, folder: Folder, log: EventLog, live: LiveStates):
        events = make_events(np.random.default_rng(12), 3_000)

        async def work() -> None:
            intake = Intake(folder)
            intake.start()
            asked = [asyncio.create_task(intake.submit(events[i : i + 100])) for i in range(0, 3_000, 100)]
            await asyncio.sleep(0)
            closing = asyncio.create_task(intake.close())
            assert all(r.online for r in await asyncio.gather(*asked))
            with pytest.raises(EventLogUnavailable, match="stopping"):
                await intake.submit(events[:1])
            await closing

        asyncio.run(work())
        assert log.last == live.mark().folded == 3_000


def told(event: Event) -> dict:
    at = NOW + timedelta(microseconds=event.at_us - int(NOW.timestamp() * 1e6))
    return {
        "id": event.id, "user_id": event.user_id, "place_id": event.place_id, "kind": event.kind,
        "timestamp": at.isoformat(), "dwell_seconds": event.dwell_s,
    }  # fmt: skip


@pytest.fixture
def at_home(registered: Path, tmp_path: Path) -> Path:
    """A folder for an app: its registry knows the views, its log is empty."""
    shutil.copyfile(registered / "registry.db", tmp_path / "registry.db")
    return tmp_path


class TestOverHttp:
    @pytest.fixture
    def served(self, live: LiveStates, own_redis: str, at_home: Path) -> Iterator[TestClient]:
        with TestClient(create_app(Settings(), ready=make_state(at_home, own_redis))) as client:
            yield client

    def test_the_next_answer_counts_what_was_just_said(self, served: TestClient, own_redis: str, registered: Path):
        store = open_store(own_redis, registered)
        count, recency = (ONLINE_PLACE.index(name) for name in ("log_count", "place_known"))
        seen = []
        for n in range(1, 6):
            answer = served.post("/events", json={"events": [
                {"id": f"e{n}", "user_id": 3, "place_id": 9, "kind": "view"},
            ]})  # fmt: skip
            assert answer.json()["online"] is True, answer.text
            row = store.rank_places(3, [9, 10], NOW + timedelta(minutes=1)).features
            seen.append(row[0, count])
            assert row[0, recency] == 1
            assert row[1].sum() == 0
        np.testing.assert_allclose(seen, np.log1p(range(1, 6)) / 4, rtol=1e-6)
        store.close()

    def test_events_over_http_are_those_of_a_recount(self, served: TestClient, live: LiveStates, tmp_path: Path):
        events = make_events(np.random.default_rng(13), 500)
        for first in range(0, 500, 50):
            answer = served.post("/events", json={"events": [told(e) for e in events[first : first + 50]]})
            assert answer.json()["accepted"] == 50, answer.text
        log = EventLog(tmp_path / "events" / "test")
        log.refresh()
        logged = list(log.read())
        assert [(e.id, e.kind, e.user_id, e.place_id, e.dwell_s) for e in logged] == [
            (e.id, e.kind, e.user_id, e.place_id, e.dwell_s) for e in events
        ]
        assert_states(live, logged)


WRITER = """
import sys
from pathlib import Path
import numpy as np
from tests.live import make_events
from recsys.events import EventLog
log, who = EventLog(Path(sys.argv[1])), sys.argv[2]
i = 0
print("ready", flush=True)
while True:
    batch = make_events(np.random.default_rng(i), 7, f"{who}-{i // 7}-")
    assert log.append(batch) == [True] * 7
    i += 7
    print(i, flush=True)
"""


def test_processes_that_append_at_once_and_are_killed_lose_nothing_that_they_acknowledged(tmp_path: Path):
    folder = tmp_path / "log"
    processes = {
        who: subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), who], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for who in "abc"
    }
    acknowledged = {}
    for process in processes.values():
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for who, process in processes.items():
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(100)]
        process.kill()
        said += process.stdout.read().splitlines(keepends=True)
        process.stdout.close()
        process.wait()
        acknowledged[who] = max(int(line) for line in said if line.endswith("\n"))
    log = EventLog(folder)
    log.append(make_events(RNG, 1, "last-"))
    found = list(log.read())
    assert [e.seq for e in found] == list(range(1, len(found) + 1))
    ids = [e.id for e in found]
    assert len(set(ids)) == len(ids)
    for who, n in acknowledged.items():
        own = [i for i in ids if i.startswith(f"{who}-")]
        assert own == [f"{who}-{i // 7}-{i % 7}" for i in range(len(own))], "in the order in which they were told"
        assert len(own) >= n >= 700


def test_a_service_that_is_killed_loses_nothing_that_it_acknowledged(live: LiveStates, own_redis: str, at_home: Path):
    """kill -9 while several clients send; all send again what was not acknowledged, to the next process."""
    acknowledged: set[str] = set()
    batches = [make_events(np.random.default_rng(100 + i), 20, f"{i}-") for i in range(200)]
    left = list(range(200))
    lock = threading.Lock()

    def send(base: str) -> None:
        with httpx.Client(base_url=base) as client:
            while True:
                with lock:
                    if not left:
                        return
                    i = left.pop()
                try:
                    answer = client.post("/events", json={"events": [told(e) for e in batches[i]]})
                    body = answer.json()
                    assert body["accepted"] + body["duplicates"] == 20, body
                    with lock:
                        acknowledged.update(e.id for e in batches[i])
                except httpx.HTTPError:
                    with lock:
                        left.append(i)
                    return

    log = EventLog(at_home / "events" / "test")
    for kill_at in (1_000, 2_500, None):
        with serving(at_home, own_redis) as (served, base), ThreadPoolExecutor(6) as clients:
            sending = [clients.submit(send, base) for _ in range(6)]
            if kill_at is not None:
                wait_for(lambda n=kill_at: len(acknowledged) >= n)
                served.kill()
            for done in sending:
                done.result()
            if kill_at is None:
                served.send_signal(signal.SIGTERM)
            served.wait()
        log.refresh()
        ids = [e.id for e in log.read()]
        assert len(set(ids)) == len(ids)
        assert acknowledged <= set(ids)
        if kill_at is not None:
            fold_pending(log, live, NOW, wall())
        assert_states(live, list(log.read()))
    assert log.last == len(acknowledged) == live.mark().folded == 4_000


def test_two_thousand_events_a_second_for_a_while(live: LiveStates, own_redis: str, at_home: Path):
    store = open_store(own_redis, at_home)
    with serving(at_home, own_redis) as (_, base):
        figures = sustained(base, live, store, at_home / "events" / "test", rate=2_000, seconds=5)
    store.close()
    print(f"\n{figures}")
    assert figures.sent == figures.logged == figures.counted == 10_000
    assert figures.wrong_pairs == 0


def test_replay_folds_what_is_in_the_log(filled: Filled, own_redis: str, tmp_path: Path):
    """The job itself, on a world that was materialized: folds once, then nothing, and refuses an empty store."""
    materialized(filled, tmp_path, own_redis)
    settings = Settings(data_dir=tmp_path, redis_url=own_redis, feature_repo=ROOT / "feature_repo")
    with Lake(tmp_path) as lake:
        log = event_log(settings, lake)
    said = {"user_id": 3, "place_id": 9, "kind": "attend", "dwell_s": None, "now": filled.end}
    at = filled.end - timedelta(hours=1)
    log.append([Event.made(id=str(i), moment=at + timedelta(seconds=i), **said) for i in range(30)])
    store = open_store(own_redis, tmp_path)
    live = LiveStates(store)
    pair = live.wanted("user_place", user_id=np.array([3]), place_id=np.array([9]))
    before = live.read([pair])[0][0]
    for folded in (30, 0):
        report = Report("replay", settings.reports)
        replay.run(settings, report)
        assert (report.figures["events"], report.figures["folded"]) == (30, folded)
        after = live.read([pair])[0][0]
        assert after is not None
        assert after[1] - (0 if before is None else before[1]) == 30
    live.clear()
    with pytest.raises(NotReady, match="recsys materialize"):
        replay.run(settings, Report("replay", settings.reports))
    store.close()
