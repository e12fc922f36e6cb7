"""Stores that freeze, die and come back, under requests through the app: no error, named, and whole again by itself."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from qdrant_client import AsyncQdrantClient

from api.app import create_app
from api.state import State
from recsys.aggregates.finish import Floats
from recsys.breaker import THRESHOLD
from recsys.errors import FeatureStoreUnavailable, IndexUnavailable
from recsys.features.wire import Commands
from recsys.index import Hits, IndexReader
from recsys.index.server import _ServerReader
from recsys.recommend.engine import Engine
from recsys.services import running, start, stop
from recsys.settings import Settings
from tests.conftest import Filled, free_port
from tests.live import open_store
from tests.parts import NOW, make_engine

ASKED = {
    "places": {"user_id": 1, "city_id": 1, "top_k": 5, "exclude_visited": True},
    "people": {"user_id": 1, "city_id": 1, "top_k": 3},
    "groups": {"user_ids": [1, 4], "city_id": 0, "top_k": 5},
}
ONLINE = {"online_features", "online_features:last_known", "online_profiles"}


@pytest.fixture
def own_server(filled: Filled, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server that may be hurt, with what the shared one holds."""
    url, folder = f"redis://127.0.0.1:{free_port()}/0", tmp_path / "redis"
    start(url, folder)
    with redis.Redis.from_url(filled.redis_url) as full, redis.Redis.from_url(url) as copy:
        keys = list(full.scan_iter(count=10_000))
        dumped = full.pipeline(transaction=False)
        for key in keys:
            dumped.dump(key)
        restored = copy.pipeline(transaction=False)
        for key, value in zip(keys, dumped.execute(), strict=True):
            restored.restore(key, 0, value)
        restored.execute()
    yield url, folder
    if running(url, folder) is not None:
        stop(url, folder)


def pid(url: str, folder: Path) -> int:
    server = running(url, folder)
    assert server is not None
    assert server.pid is not None
    return server.pid


@asynccontextmanager
async def served(engine: Engine, now) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings(max_in_flight=100), ready=State(engine, lambda: now))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client,
    ):
        yield client


async def ask(client: httpx.AsyncClient, kind: str) -> dict:
    answer = await client.post(f"/recommend/{kind}", json=ASKED[kind])
    assert answer.status_code == 200, answer.text
    return answer.json()


async def until_whole(client: httpx.AsyncClient, kind: str) -> dict:
    deadline = time.monotonic() + 10
    while (body := await ask(client, kind))["degraded"]:
        assert time.monotonic() < deadline, "it is back, but answers do without it"
    return body


def items(body: dict) -> list[int]:
    return [r.get("place_id", r.get("user_id")) for r in body["recommendations"]]


def online_engine(filled: Filled, url: str, tmp_path: Path) -> tuple[Engine, list[float]]:
    """Ranks by a real online store; the moments at which that is asked come with it."""
    store, moments = open_store(url, filled.data_dir, timeout_s=0.05), []
    plain = store.wire.ask

    def counted(commands: Commands) -> list:
        moments.append(time.monotonic())
        return plain(commands)

    store.wire.ask = counted  # type: ignore[method-assign]
    return replace(make_engine(tmp_path / "index"), features=store), moments


def test_a_frozen_store_holds_up_a_few_requests_once_and_none_fails(
    filled: Filled, own_server: tuple[str, Path], tmp_path: Path
):
    engine, moments = online_engine(filled, own_server[0], tmp_path)

    async def run() -> None:
        async with served(engine, filled.end) as client:
            whole = {kind: await ask(client, kind) for kind in ASKED}
            assert all(body["degraded"] == [] for body in whole.values())
            assert all(items(body) for body in whole.values())
            server = pid(*own_server)
            os.kill(server, signal.SIGSTOP)
            try:
                moments.clear()
                bodies = await asyncio.gather(*(ask(client, kind) for kind in list(ASKED) * 20))
                assert all(body["degraded"] and set(body["degraded"]) <= ONLINE for body in bodies)
                # every thread of asyncio's may wait for a deadline, and those of the first failures once more
                most, opened = min(32, (os.cpu_count() or 1) + 4) + THRESHOLD - 1, time.monotonic()
                assert THRESHOLD <= len(moments) <= most + (opened - moments[0])
                moments.clear()
                for _ in range(30):
                    for kind in ASKED:
                        assert (await ask(client, kind))["degraded"]
                assert len(moments) <= 1 + (time.monotonic() - opened), "one probe a second"
                assert (await client.post("/explain", json={"user_id": 1, "place_id": 4})).status_code == 503
                ready = await client.get("/ready")
                assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
            finally:
                os.kill(server, signal.SIGCONT)
            for kind, before in whole.items():
                assert (await until_whole(client, kind))["recommendations"] == before["recommendations"]
            assert (await client.get("/ready")).json()["status"] == "ready"

    asyncio.run(run())
    assert engine.degradations["online_profiles"] >= 150


def test_idle_connections_are_given_up_with_the_one_that_failed(filled: Filled, own_server: tuple[str, Path]):
    """By many threads at once; or the first reads after a restart would fail, one for each of them."""
    store = open_store(own_server[0], filled.data_dir)
    with ThreadPoolExecutor(16) as threads:

        def read(user_id: int) -> bool:
            try:
                return store.users([user_id], filled.end) != []
            except FeatureStoreUnavailable:
                return False

        assert all(threads.map(read, range(64)))
        assert store.wire._idle
        server = pid(*own_server)
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        assert not any(threads.map(read, range(64)))
        assert not store.wire._idle
        start(*own_server)
        assert read(1)
    store.close()


def test_a_store_that_is_killed_and_started_again_needs_no_restart_of_the_app(
    filled: Filled, own_server: tuple[str, Path], tmp_path: Path
):
    engine, _ = online_engine(filled, own_server[0], tmp_path)

    async def run() -> None:
        async with served(engine, filled.end) as client:
            whole = {kind: await ask(client, kind) for kind in ASKED}
            # many connections wait idle for a server that will be another one
            await asyncio.gather(*(ask(client, "places") for _ in range(30)))
            server = pid(*own_server)
            os.kill(server, signal.SIGKILL)
            os.waitpid(server, 0)
            for kind in list(ASKED) * 5:
                body = await ask(client, kind)
                assert body["degraded"]
                assert set(body["degraded"]) <= ONLINE
                assert items(body)
            start(*own_server)
            for kind, before in whole.items():
                assert (await until_whole(client, kind))["recommendations"] == before["recommendations"]

    asyncio.run(run())


@pytest.fixture
def deaf() -> Iterator[str]:
    """Takes every connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["deaf", "nobody"])
def test_an_index_server_that_does_not_answer_costs_its_deadline_and_nothing_else(kind: str, deaf: str, tmp_path: Path):
    whole = make_engine(tmp_path / "index")

    async def run() -> None:
        async with served(whole, NOW) as client:
            expected = {kind: await ask(client, kind) for kind in ASKED}
        url = deaf if kind == "deaf" else f"http://127.0.0.1:{free_port()}"
        index = _ServerReader(AsyncQdrantClient(url=url, timeout=5, check_compatibility=False), whole.version)
        engine = replace(whole, index=index, guards=replace(whole.guards, index_timeout_s=0.1))
        async with served(engine, NOW) as client:
            began = time.monotonic()
            for _ in range(4):
                for kind_, before in expected.items():
                    body = await ask(client, kind_)
                    assert body["degraded"] == ["index"]
                    assert items(body) == items(before)
            assert time.monotonic() - began < 5, "one call alone may take as long as the client lets it"
            assert engine.guards.index.status in ("open", "half_open")
            ready = (await client.get("/ready")).json()
            assert (ready["status"], ready["parts"]["index"]) == ("degraded", "does not answer")

    asyncio.run(run())


class Failing:
    """A version's vectors, while they can be had."""

    def __init__(self, whole: IndexReader) -> None:
        self._whole, self.version, self.down = whole, whole.version, False

    async def search(self, *args: Any, **options: Any) -> Hits:
        return await self._there().search(*args, **options)

    async def vectors(self, *args: Any, **options: Any) -> dict[int, Floats]:
        return await self._there().vectors(*args, **options)

    async def close(self) -> None:
        await self._whole.close()

    def _there(self) -> IndexReader:
        if self.down:
            raise IndexUnavailable("away")
        return self._whole


def test_an_index_that_was_away_is_found_again(tmp_path: Path):
    whole = make_engine(tmp_path / "index")
    index = Failing(whole.index)

    async def run() -> None:
        async with served(replace(whole, index=index), NOW) as client:
            expected = {kind: await ask(client, kind) for kind in ASKED}
            index.down = True
            for kind, before in expected.items():
                body = await ask(client, kind)
                assert body["degraded"] == ["index"]
                assert items(body) == items(before)
            index.down = False
            for kind, before in expected.items():
                body = await until_whole(client, kind)
                assert items(body) == items(before)

    asyncio.run(run())


def test_an_embedded_index_whose_folder_is_moved_away_goes_on_answering(tmp_path: Path):
    whole = make_engine(tmp_path / "index")

    async def run() -> None:
        async with served(whole, NOW) as client:
            expected = {kind: await ask(client, kind) for kind in ASKED}
            for path in list((tmp_path / "index").glob("*__*")):
                path.rename(path.with_name(f"away-{path.name}"))
            for kind, before in expected.items():
                body = await ask(client, kind)
                assert body["degraded"] == []
                assert items(body) == items(before)

    asyncio.run(run())
