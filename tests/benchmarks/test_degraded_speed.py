"""The online store frozen under load: how many answers are in time, how many fail, how soon they are whole again."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from recsys.services import running, start, stop
from tests.conftest import Filled, free_port
from tests.live import materialized, serving

RATE, IN_TIME_MS = 50, 150.0
BEFORE_S, FROZEN_S, AFTER_S = 2.0, 6.0, 4.0


@dataclass(frozen=True)
class Asked:
    """One request: when it was sent, seconds from the start; how long it took; and what came."""

    at_s: float
    took_ms: float
    status: int
    degraded: tuple[str, ...]


async def _load(
    base: str, body: Callable[[int], tuple[str, dict]], acts: dict[float, Callable[[], None]]
) -> list[Asked]:
    """RATE requests a second, whatever becomes of those before; at some moments something is done besides."""
    asked: list[Asked] = []
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
    async with httpx.AsyncClient(base_url=base, timeout=30, limits=limits) as client:
        for i in range(20):
            path, said = body(i)
            assert (await client.post(path, json=said)).json()["degraded"] == []
        start_s = time.perf_counter()

        async def one(i: int) -> None:
            await asyncio.sleep(start_s + i / RATE - time.perf_counter())
            path, said = body(i)
            began = time.perf_counter()
            answer = await client.post(path, json=said)
            took = time.perf_counter() - began
            degraded = tuple(answer.json().get("degraded", ()))
            asked.append(Asked(began - start_s, took * 1e3, answer.status_code, degraded))

        async def act(at_s: float, what: Callable[[], None]) -> None:
            await asyncio.sleep(at_s)
            what()

        seconds = BEFORE_S + FROZEN_S + AFTER_S
        await asyncio.gather(*(one(i) for i in range(int(RATE * seconds))), *(act(*a) for a in acts.items()))
    return sorted(asked, key=lambda a: a.at_s)


def frozen_under_load(base: str, server: int, body: Callable[[int], tuple[str, dict]]) -> None:
    """Stop a process under load and let it go on; print and hold what came."""
    thawed_s = BEFORE_S + FROZEN_S
    try:
        acts = {BEFORE_S: lambda: os.kill(server, signal.SIGSTOP), thawed_s: lambda: os.kill(server, signal.SIGCONT)}
        asked = asyncio.run(_load(base, body, acts))
    finally:
        os.kill(server, signal.SIGCONT)
    took = np.array([a.took_ms for a in asked])
    while_frozen = np.array([a.took_ms for a in asked if BEFORE_S <= a.at_s < thawed_s])
    errors = sum(a.status >= 500 for a in asked)
    named = [a for a in asked if a.degraded]
    waited = sum(BEFORE_S <= a.at_s < thawed_s and a.took_ms > 45 for a in asked)
    back_s = max([a.at_s for a in named if a.at_s >= thawed_s], default=thawed_s) - thawed_s
    print(
        f"\n{len(asked)} requests at {RATE}/s, frozen for {FROZEN_S:g} s: {errors} errors, {len(named)} degraded; "
        f"within {IN_TIME_MS:g} ms {np.mean(took <= IN_TIME_MS):.2%}; frozen p50 {np.median(while_frozen):.1f}, "
        f"p99 {np.percentile(while_frozen, 99):.1f}, max {while_frozen.max():.1f} ms, {waited} waited for a deadline; "
        f"whole again {back_s:.1f} s after its return"
    )
    assert {a.status for a in asked} == {200}
    assert len(named) >= 0.9 * RATE * FROZEN_S
    assert np.mean(took <= IN_TIME_MS) >= 0.999
    assert back_s <= 10


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[tuple[str, int]]:
    url, folder = f"redis://127.0.0.1:{free_port()}/0", tmp_path / "redis"
    start(url, folder)
    server = running(url, folder)
    assert server is not None
    assert server.pid is not None
    yield url, server.pid
    stop(url, folder)


def test_a_store_that_freezes_under_load(filled: Filled, own_server: tuple[str, int], tmp_path: Path):
    url, server = own_server
    materialized(filled, tmp_path, url)

    def body(i: int) -> tuple[str, dict]:
        user_id, city_id = i % 50, i % 2
        return f"/recommend/{'people' if i % 5 == 0 else 'places'}", {
            "user_id": user_id,
            "city_id": city_id,
            "top_k": 5,
        }

    with serving(tmp_path, url, place_cache_s=1.0, timeout_s=0.05) as (_, base):
        frozen_under_load(base, server, body)
