"""Versions come and go while requests are answered: each answer is one version's, and says which."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pyarrow.dataset as ds
import pytest
from qdrant_client import AsyncQdrantClient

from api.follow import PREVIOUS, Follower
from api.traffic import Split
from recsys.artifacts import open_artifact
from recsys.errors import ArtifactError, ConfigError
from recsys.events import EventLog
from recsys.features import FeatureStore, LiveStates
from recsys.index import ServerIndex
from recsys.index.edge import EdgeIndex
from recsys.recommend.places import recommend_places
from recsys.recommend.ranking import PlaceQuery
from recsys.settings import Settings
from tests.conftest import Filled
from tests.live import open_store
from tests.served import ONE, THREE, TWO, app_of, back, installed, process, put, serves, train_versions, until

USERS = range(12)


@pytest.fixture(scope="module")
def trained(filled: Filled, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return train_versions(filled, tmp_path_factory.mktemp("versions") / "data")


@pytest.fixture
def settings(trained: Settings, tmp_path: Path) -> Settings:
    """Nothing is published."""
    return installed(trained, tmp_path / "data")


@pytest.fixture
def both(trained: Settings, tmp_path: Path) -> Settings:
    """ONE is live, TWO is the version before."""
    return installed(trained, tmp_path / "data", published=True)


async def ask(client: httpx.AsyncClient, user: int, **more: object) -> dict:
    answer = await client.post("/recommend/places", json={"user_id": user, "top_k": 100, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def scores(body: dict) -> dict[int, float]:
    return {r["place_id"]: r["score"] for r in body["recommendations"]}


async def expected(client: httpx.AsyncClient) -> dict[int, dict[int, float]]:
    return {user: scores(await ask(client, user)) for user in USERS}


def assert_of(body: dict, known: dict[str, dict[int, dict[int, float]]], user: int) -> None:
    """An answer's places and scores are those of the version that it names, and not the other's."""
    own = known[body["model_version"]][user]
    assert scores(body) == pytest.approx(own, abs=5e-3), body["model_version"]


def test_publish_and_roll_back_under_requests(both: Settings):
    settings = both

    async def scenario() -> None:
        async with app_of(settings) as (_, client):
            known = {ONE: await expected(client)}
            await asyncio.to_thread(back, settings)
            await serves(client, TWO)
            known[TWO] = await expected(client)
            for user in USERS:
                apart = max(abs(known[ONE][user][p] - known[TWO][user][p]) for p in known[ONE][user])
                assert apart > 0.05, "else a mixed answer would not be seen"
            seen: list[tuple[float, str]] = []
            stop = asyncio.Event()

            async def load(begin: int) -> None:
                at = begin
                while not stop.is_set():
                    user = USERS[at % len(USERS)]
                    at += 1
                    body = await ask(client, user)
                    if body["model_version"] == THREE:  # whose first answers are the measure of the others
                        known.setdefault(THREE, {}).setdefault(user, scores(body))
                    assert_of(body, known, user)
                    assert body["degraded"] == []
                    seen.append((time.monotonic(), body["model_version"]))

            clients = [asyncio.create_task(load(i)) for i in range(4)]
            try:
                for move, version in ((back, ONE), (back, TWO)):
                    began = time.monotonic()
                    await asyncio.to_thread(move, settings)

                    async def answered(version=version, began=began) -> bool:
                        return any(v == version for at, v in seen if at > began)

                    await until(answered, f"{version} answers", 5)
                    first = min(at for at, v in seen if at > began and v == version)
                    print(f"\nrolled back in {first - began:.2f} s")
                    assert first - began < 1.0
                await asyncio.to_thread(put, settings, THREE)
                await serves(client, THREE)
                asked = len(seen)

                async def enough() -> bool:
                    everybody = len(seen) > asked + 2 * len(USERS) and len(known.get(THREE, {})) == len(USERS)
                    return everybody or any(c.done() for c in clients)

                await until(enough, "three answers everybody twice")
            finally:
                stop.set()
                await asyncio.gather(*clients)
            assert [v for _, v in seen][-1] == THREE
            assert known[THREE].keys() == set(USERS)
            for user in USERS:
                assert max(abs(known[THREE][user][p] - known[TWO][user][p]) for p in known[TWO][user]) > 0.05

    asyncio.run(scenario())
    assert list((settings.index / "readers").glob("[!.]*")) == [], "every reader was closed"


def test_nothing_published_then_something_is_and_the_api_begins(settings: Settings):
    async def scenario() -> None:
        async with app_of(settings) as (_, client):
            assert (await client.get("/ready")).status_code == 503
            assert (await client.post("/recommend/places", json={"user_id": 1})).status_code == 503
            await asyncio.to_thread(put, settings, ONE)
            await serves(client, ONE)
            assert (await ask(client, 1))["model_version"] == ONE
            sent = await client.post(
                "/events", json={"events": [{"id": "a", "user_id": 1, "place_id": 1, "kind": "view"}]}
            )
            assert sent.json()["accepted"] == 1, sent.text

    asyncio.run(scenario())


def test_an_index_that_is_moved_away_changes_nothing_and_nothing_is_loaded_again(
    both: Settings, monkeypatch: pytest.MonkeyPatch
):
    looks = 0
    refresh = EdgeIndex.refresh

    async def counted(self: EdgeIndex) -> str | None:
        nonlocal looks
        looks += 1
        return await refresh(self)

    async def scenario() -> None:
        async with app_of(both) as (app, client):
            fleet = app.state.fleet

            async def complete() -> bool:
                return len(fleet.loaded) == 2

            await until(complete, "the version before is there")
            before, answer = fleet.loaded, scores(await ask(client, 3))
            monkeypatch.setattr(EdgeIndex, "refresh", counted)
            for move in (lambda: both.index.rename(away), lambda: away.rename(both.index)):
                move()
                begun = looks

                async def looked(begun: int = begun) -> bool:
                    return looks > begun + 2

                await until(looked, "the pointer was looked at")
                assert fleet.loaded == before
                body = await ask(client, 3)
                assert (body["model_version"], body["degraded"]) == (ONE, [])
                assert scores(body) == pytest.approx(answer, abs=5e-3)  # a moment later

    away = both.data_dir / "away"
    asyncio.run(scenario())


def damage(settings: Settings, version: str) -> Path:
    path = settings.artifacts / version / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8] + b"damaged!")
    return path


def test_a_version_that_cannot_be_loaded_does_not_replace_the_one_that_serves(both: Settings):
    async def scenario() -> None:
        async with app_of(both) as (_, client):
            assert (await client.get("/ready")).json()["status"] == "ready"
            await asyncio.to_thread(put, both, THREE)
            await serves(client, THREE)
            damage(both, TWO)
            with pytest.raises(ArtifactError, match="damaged"):
                await asyncio.to_thread(put, both, TWO)
            assert (await ask(client, 3))["degraded"] == []

            async def says() -> bool:
                return (await client.get("/ready")).json()["status"] == "degraded"

            # damaged after the index took it, and never loaded: as where the artifacts are on another disk
            (both.index / "live.json").write_text(json.dumps({"live": TWO, "previous": THREE}))
            await until(says, "the version that is damaged is named")
            ready = (await client.get("/ready")).json()
            assert ready["model_version"] == THREE
            assert "version two cannot be loaded" in ready["parts"]["model"]
            assert "damaged" in ready["parts"]["model"]
            body = await ask(client, 3)
            assert (body["model_version"], body["degraded"]) == (THREE, [PREVIOUS])
            people = await client.post("/recommend/people", json={"user_id": 3})
            assert people.json()["degraded"] == [PREVIOUS]

    asyncio.run(scenario())


def test_a_damaged_live_version_at_start_up_lets_the_one_before_serve_until_it_is_mended(
    both: Settings, monkeypatch: pytest.MonkeyPatch
):
    settings = both
    back(settings)
    whole = (settings.artifacts / TWO / "model.safetensors").read_bytes()
    path = damage(settings, TWO)
    monkeypatch.setattr("api.follow._RETRY_S", 0.3)

    async def scenario() -> None:
        async with app_of(settings) as (_, client):
            for kind, body in (
                ("places", {"user_id": 2}), ("people", {"user_id": 2}), ("groups", {"user_ids": [2, 5]}),
            ):  # fmt: skip
                answer = (await client.post(f"/recommend/{kind}", json=body)).json()
                assert (answer["model_version"], answer["degraded"]) == (ONE, [PREVIOUS])
            ready = (await client.get("/ready")).json()
            assert ready["status"] == "degraded"
            assert "version two cannot be loaded" in ready["parts"]["model"]
            assert "damaged" in ready["parts"]["model"]
            path.write_bytes(whole)
            await serves(client, TWO)
            assert (await ask(client, 2))["degraded"] == []
            assert (await client.get("/ready")).json()["status"] == "ready"
            (settings.index / "live.json").write_text("{")  # a pointer that says nothing changes nothing
            await asyncio.sleep(0.5)
            assert (await ask(client, 2))["model_version"] == TWO
        damage(settings, ONE)
        damage(settings, TWO)
        (settings.index / "live.json").write_text(json.dumps({"live": TWO, "previous": ONE}))
        with pytest.raises(ArtifactError, match="damaged"):
            await Follower.open(settings)

    asyncio.run(scenario())
    assert list((settings.index / "readers").glob("[!.]*")) == []


def shown(settings: Settings) -> list[dict]:
    return ds.dataset(sorted(settings.impressions.rglob("[!.]*.parquet"))).to_table().to_pylist()


def test_a_split_answers_its_share_by_the_other_version_and_notes_it(both: Settings):
    settings = both
    split = settings.model_copy(update={"split": f"{TWO}:0.4"})
    users = range(60)

    async def scenario() -> dict[int, dict]:
        async with app_of(split) as (_, client):
            answers = {user: await ask(client, user, top_k=3) for user in users}
            for user in users:
                assert (await ask(client, user, top_k=3))["model_version"] == answers[user]["model_version"]
            newcomer = {"city_id": 0, "profile": {"categories": [1]}, "user_id": 10**6}
            stranger = await client.post("/recommend/places", json=newcomer)
            assert stranger.json()["model_version"] == ONE
            explained = [
                await client.post("/explain", json={"user_id": user, "place_id": 3, "city_id": 0}) for user in users
            ]
            assert [e.json()["model_version"] for e in explained] == [answers[u]["model_version"] for u in users]
        return answers

    answers = asyncio.run(scenario())
    by = {user: body["model_version"] for user, body in answers.items()}
    assert by == {user: TWO if Split(TWO, 0.4).takes(user) else ONE for user in users}
    rows = shown(split)
    for row in rows:
        if row["user_id"] == 10**6:
            assert (row["arm"], row["model_version"]) == ("outside", ONE)
        else:
            assert (row["arm"], row["model_version"]) == (
                "split" if by[row["user_id"]] == TWO else "live", by[row["user_id"]],
            )  # fmt: skip
    assert len(rows) == 2 * sum(len(body["recommendations"]) for body in answers.values()) + 10
    first = [row for row in rows if row["request_id"] == answers[5]["request_id"]]
    assert [(r["item_id"], r["position"]) for r in first] == [
        (r["place_id"], i) for i, r in enumerate(answers[5]["recommendations"], start=1)
    ]
    assert [r["score"] for r in first] == pytest.approx([r["score"] for r in answers[5]["recommendations"]])
    assert {(r["kind"], r["city_id"], tuple(r["degraded"])) for r in first} == {("place", answers[5]["city_id"], ())}


def test_a_shadow_leaves_answers_as_they_are_and_is_noted_apart(both: Settings):
    settings = both

    async def answers(made: Settings) -> dict[int, dict]:
        async with app_of(made) as (app, client):
            found = {}
            for user in USERS:
                found[user] = await ask(client, user, top_k=5)
                shadows = app.state.shadows
                await until(_idle(shadows), "the shadow is done")
            assert app.state.shadows.dropped == 0
            asked = [client.post("/recommend/groups", json={"user_ids": [i, i + 1]}) for i in range(8)]
            assert {a.status_code for a in await asyncio.gather(*asked)} == {200}
            assert app.state.shadows.dropped > 0 or made.shadow is None, "busy: dropped, not queued"
        return found

    plain = asyncio.run(answers(settings))
    shutil.rmtree(settings.impressions)
    beside = asyncio.run(answers(settings.model_copy(update={"shadow": TWO})))
    for user in USERS:
        assert beside[user]["model_version"] == ONE
        assert scores(beside[user]) == pytest.approx(scores(plain[user]), abs=5e-3)
    rows = shown(settings)
    for user in USERS:
        mine = [r for r in rows if r["request_id"] == beside[user]["request_id"]]
        assert {(r["arm"], r["model_version"]) for r in mine} == {("live", ONE), ("shadow", TWO)}
        assert sum(r["arm"] == "live" for r in mine) == sum(r["arm"] == "shadow" for r in mine) == 5


def _idle(shadows):
    async def idle() -> bool:
        return not shadows._tasks

    return idle


def test_what_cannot_be_split_is_one_clear_error(both: Settings):
    names = "must name the live version or the one before it: one and two (got three)"
    for setting, value, said in (
        ("split", "two", "RECSYS_SPLIT must be VERSION:SHARE"),
        ("split", "two:1.5", "RECSYS_SPLIT must be VERSION:SHARE"),
        ("split", "two:-0.1", "RECSYS_SPLIT must be VERSION:SHARE"),
        ("split", "Two:0.1", "RECSYS_SPLIT must be VERSION:SHARE"),
        ("split", "three:0.1", f"RECSYS_SPLIT {names}"),
        ("shadow", "three", f"RECSYS_SHADOW {names}"),
    ):
        with pytest.raises(ConfigError) as refused:
            asyncio.run(Follower.open(both.model_copy(update={setting: value})))
        assert said in str(refused.value)
    damage(both, TWO)
    with pytest.raises(ConfigError, match="RECSYS_SPLIT: version two cannot be loaded"):
        asyncio.run(Follower.open(both.model_copy(update={"split": "two:0.1"})))


def test_an_index_server_is_followed_too(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    """The client's local mode: the same client code that talks to a server."""
    client = AsyncQdrantClient(":memory:")
    for user in ("api.follow", "jobs.publish", "jobs.rollback"):
        monkeypatch.setattr(f"{user}.open_index", lambda *_, **__: ServerIndex(client, owned=False))
    made = settings.model_copy(update={"qdrant_url": "http://it.is.the.one.above"})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Payload indexes have no effect in the local Qdrant")
        put(made, ONE)

    async def scenario() -> None:
        async with app_of(made) as (_, client):
            before = await expected(client)
            for move, version in ((put, TWO), (back, ONE)):
                await asyncio.to_thread(move, made, *([version] if move is put else []))
                await serves(client, version)
            for user in USERS:
                assert_of(await ask(client, user), {ONE: before}, user)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Payload indexes have no effect in the local Qdrant")
        asyncio.run(scenario())


def test_what_is_left_is_closed_when_the_last_request_has_left_it_and_a_split_ends_with_its_version(both: Settings):
    split = both.model_copy(update={"split": f"{TWO}:1"})

    def readers() -> int:
        return len(list((both.index / "readers").glob("[!.]*.lock")))

    async def scenario() -> None:
        async with app_of(split) as (app, client):
            assert (await ask(client, 3))["model_version"] == TWO
            with app.state.fleet.lease() as state:
                await asyncio.to_thread(put, both, THREE)
                await serves(client, THREE)
                assert (await ask(client, 3))["model_version"] == THREE
                ready = (await client.get("/ready")).json()
                assert ready["status"] == "degraded"
                assert "version two cannot be loaded: the index does not hold it any more" in ready["parts"]["model"]
                assert (await ask(client, 3))["degraded"] == [], "the version that is published answers"
                for engine in (state.engine, state.split.engine):  # a request that began before goes on
                    answer = await recommend_places(engine, PlaceQuery(3), state.now())
                    assert answer.recommendations
                assert readers() == 3

            async def closed() -> bool:
                return readers() == 2

            await until(closed, "only the live version and the one before are open")

    asyncio.run(scenario())


def test_a_share_is_that_share_of_the_users_and_grows_by_others():
    users = range(20_000)
    taken = {share: {u for u in users if Split("b", share).takes(u)} for share in (0.0, 0.1, 0.25, 1.0)}
    assert not taken[0.0]
    assert len(taken[1.0]) == len(users)
    for share in (0.1, 0.25):
        assert len(taken[share]) / len(users) == pytest.approx(share, abs=4 * (share * (1 - share) / 20_000) ** 0.5)
    assert taken[0.1] < taken[0.25]
    other = {u for u in users if Split("c", 0.25).takes(u)}
    assert len(other & taken[0.25]) / len(users) == pytest.approx(0.0625, abs=0.01), "salted by the version's name"


def children(process: subprocess.Popen[bytes]) -> set[int]:
    """Workers: processes that the served one started, but for Python's own helper of them."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return {int(pid) for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


def opens(pids: set[int], name: str) -> bool:
    """Whether one of some processes has a file of that name open."""
    fds = (fd for pid in pids for fd in Path(f"/proc/{pid}/fd").glob("*"))
    return any(str(fd.readlink()).endswith(name) for fd in fds if fd.is_symlink())


def seen(store: FeatureStore, pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """How many events of users at places the online store counts."""
    live = LiveStates(store)
    users, places = (np.array(column) for column in zip(*pairs, strict=True))
    (states,) = live.read([live.wanted("user_place", user_id=users, place_id=places)])
    return {pair: 0 if s is None else int(s[1]) for pair, s in zip(pairs, states, strict=True)}


def versions_of(base: str, times: int = 24) -> set[str]:
    """What answers on so many connections: whichever worker takes each."""
    with ThreadPoolExecutor(8) as pool:
        return set(pool.map(lambda _: str(httpx.get(base, timeout=30).json()["model_version"]), range(times)))


def test_workers_follow_count_events_once_and_finish_what_they_began(both: Settings):
    with process(both, "--workers", "2") as (served, base):
        workers = children(served)
        assert len(workers) == 2
        wait_for(lambda: len(list((both.index / "readers").glob("[!.]*.lock"))) == 4, "each reads both versions")
        assert versions_of(base) == {ONE}
        back(both)
        wait_for(lambda: versions_of(base, 8) == {TWO}, "a rollback reaches all", 5)
        assert versions_of(base) == {TWO}

        # the same events to both of them at once
        live = open_store(both.redis_url, both.data_dir)
        pairs = [(user, place) for user in range(4) for place in range(5)]
        before = seen(live, pairs)
        told = [
            {"id": f"{user}-{place}-{i}", "user_id": user, "place_id": place, "kind": "view"}
            for user, place in pairs for i in range(3)
        ]  # fmt: skip

        def send(n: int) -> dict:
            batch = told[n % 6 * 10 : n % 6 * 10 + 10]
            answer = httpx.post(f"{base}/events", json={"events": batch}, timeout=30)
            assert answer.status_code == 200, answer.text
            return answer.json()

        with ThreadPoolExecutor(8) as pool:
            receipts = list(pool.map(send, range(24)))
        assert sum(r["accepted"] for r in receipts) == len(told) == 60
        assert sum(r["duplicates"] for r in receipts) == 3 * len(told)
        wait_for(lambda: seen(live, pairs) == {pair: n + 3 for pair, n in before.items()}, "each event counts once")

        # one dies
        readers = set((both.index / "readers").glob("[!.]*.lock"))
        os.kill(gone := min(workers), signal.SIGKILL)
        wait_for(lambda: len(children(served) - {gone}) == 2, "a worker that died is started again")

        def replaced() -> bool:
            now = set((both.index / "readers").glob("[!.]*.lock"))
            return len(now) == 4 and len(now - readers) == 2

        wait_for(replaced, "it reads both versions, and what the dead one left is removed")
        assert versions_of(base) == {TWO}
        asked = 12
        with ThreadPoolExecutor(4) as pool:
            bodies = list(
                pool.map(
                    lambda user: httpx.post(f"{base}/recommend/places", json={"user_id": user}, timeout=30).json(),
                    range(asked),
                )
            )

        # a request that has begun is finished
        log = EventLog(both.events / str(open_artifact(both.artifacts, ONE).manifest["world"]))
        workers = children(served)
        with ThreadPoolExecutor(1) as pool:
            with log.appending():
                begun = pool.submit(
                    httpx.post, f"{base}/events", json={"events": [{**told[0], "id": "last"}]}, timeout=30
                )
                wait_for(lambda: opens(workers, ".append.lock"), "the request waits for the log")
                served.send_signal(signal.SIGTERM)
                time.sleep(0.3)
                assert served.poll() is None, "it waits for the request"
            assert begun.result().json()["accepted"] == 1
        assert served.wait(30) == 128 + signal.SIGTERM
    live.close()
    assert len(shown(both)) == sum(len(body["recommendations"]) for body in bodies), "written when it stops"
    assert list((both.index / "readers").glob("[!.]*")) == []
