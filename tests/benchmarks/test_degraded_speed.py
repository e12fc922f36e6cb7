"""The online store frozen under load: how many answers are in time, how many fail, how soon they are whole again."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.services import running, start, stop
from tests.conftest import Filled, free_port
from tests.live import materialized, serving
from tests.load import Client, Make, open_loop

RATE, IN_TIME_MS = 50, 150.0
BEFORE_S, FROZEN_S, AFTER_S = 2.0, 6.0, 4.0


def frozen_under_load(base: str, server: int, make: Make) -> None:
    """Stop a process under load and let it go on; print and hold what came."""
    client = Client(base)
    for n in range(20):  # warm, and whole
        status, _, _ = client.post(*make(n))
        assert status == 200
    client.close()
    thawed_s = BEFORE_S + FROZEN_S
    acts = [
        threading.Timer(at_s, os.kill, (server, what))
        for at_s, what in ((BEFORE_S, signal.SIGSTOP), (thawed_s, signal.SIGCONT))
    ]
    try:
        for act in acts:
            act.start()
        load = open_loop(base, make, rate=RATE, seconds=thawed_s + AFTER_S)
    finally:
        for act in acts:
            act.cancel()
        os.kill(server, signal.SIGCONT)
    frozen = [a for a in load.answers if BEFORE_S <= a.at < thawed_s]
    degraded = [a for a in load.answers if a.status == 200 and a.json()["degraded"]]
    in_time = np.mean([a.status == 200 and a.ms <= IN_TIME_MS for a in load.answers])
    back_s = max([a.at for a in degraded if a.at >= thawed_s], default=thawed_s) - thawed_s
    took = np.array([a.ms for a in frozen])
    print(
        f"\n{load}\nfrozen for {FROZEN_S:g} s at {RATE}/s: {len(degraded)} degraded, {in_time:.2%} of all within "
        f"{IN_TIME_MS:g} ms; p50 {np.median(took):.1f}, p99 {np.quantile(took, 0.99):.1f}, worst {took.max():.1f} ms; "
        f"{int((took > 45).sum())} waited for a deadline; whole again {back_s:.1f} s after its return"
    )
    assert load.statuses().keys() == {200}
    assert len(degraded) >= 0.9 * RATE * FROZEN_S
    assert in_time >= 0.999
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

    def make(n: int) -> tuple[str, dict[str, Any]]:
        body = {"user_id": n % 50, "city_id": n % 2, "top_k": 5}
        return f"/recommend/{'people' if n % 5 == 0 else 'places'}", body

    with serving(tmp_path, url, feature_cache_s=1.0, timeout_s=0.05) as (_, base):
        frozen_under_load(base, server, make)
