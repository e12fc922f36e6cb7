"""A Redis Cluster beside one server: what a read costs, and what requests lose when a primary is killed under load."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.features.slots import command_slots
from tests.benchmarks.test_features_speed import in_turns
from tests.cluster import Cluster, cluster, copy, until
from tests.conftest import Filled
from tests.live import open_store, serving
from tests.load import Client, open_loop

RATE, BEFORE_S, SECONDS = 40, 2.0, 16.0


@pytest.fixture(scope="module")
def six(filled: Filled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("six"), replicas=True) as made:
        copy(filled.redis_url, made.url)
        pairs = list(zip(made.primaries, made.replicas, strict=True))
        until(lambda: all(r.client.dbsize() == p.client.dbsize() for p, r in pairs), "the replicas have it too")
        yield made


def test_a_read_of_a_user_and_200_candidates(filled: Filled, six: Cluster):
    now, ids = filled.end, np.arange(200)
    one, many = (open_store(url, filled.data_dir, timeout_s=1.0) for url in (filled.redis_url, six.url))
    rows = one.rows("user_place")
    commands = rows.get([{"user_id": np.full(400, 3), "place_id": np.arange(400)}[name] for name in rows.join_keys])
    took = in_turns(
        {
            "one server": lambda: one.rank_places(42, ids, now),
            "three primaries": lambda: many.rank_places(42, ids, now),
            "slots of 400 commands": lambda: command_slots(commands),
        }
    )
    print()
    for name, ms in took.items():
        print(f"{name}: p50 {np.median(ms):.2f} ms, p99 {np.quantile(ms, 0.99):.2f} ms")
    single, spread, at_once = (float(np.median(ms)) for ms in took.values())
    print(f"a cluster takes {spread / single:.2f} times as long as one server")
    one.close()
    many.close()
    assert spread < 2 * single
    assert at_once < 1.0


def test_a_primary_is_killed_under_load(filled: Filled, six: Cluster, tmp_path: Path):
    def make(n: int) -> tuple[str, dict[str, Any]]:
        return f"/recommend/{'people' if n % 5 == 0 else 'places'}", {"user_id": n % 50, "city_id": n % 2, "top_k": 5}

    victim, heir = six.primaries[1], six.replicas[1]
    promoted: list[float] = []

    def kill() -> None:
        victim.kill()
        until(heir.is_primary, "its replica takes over")
        promoted.append(time.perf_counter() - began)

    (tmp_path / "registry.db").write_bytes((filled.data_dir / "registry.db").read_bytes())
    with serving(tmp_path, six.url, feature_cache_s=1.0, timeout_s=0.05) as (_, base):
        client = Client(base)
        for n in range(20):
            assert client.post(*make(n))[0] == 200
        client.close()
        act = threading.Timer(BEFORE_S, kill)
        began = time.perf_counter()
        act.start()
        load = open_loop(base, make, rate=RATE, seconds=SECONDS)
        act.join()
    gone = [a for a in load.answers if a.status == 200 and a.json()["degraded"]]
    named = {name for a in gone for name in a.json()["degraded"]}
    took_s = promoted[0] - BEFORE_S
    since = sorted((a.at, bool(a.json()["degraded"])) for a in load.answers if a.at > promoted[0])
    whole_at = next(i for i in range(len(since)) if not any(bad for _, bad in since[i : i + RATE]))  # for a second
    back_s = since[whole_at][0] - promoted[0]
    meanwhile = np.array([a.ms for a in load.answers if BEFORE_S <= a.at < promoted[0]])
    print(
        f"\n{load}\nkilled at {RATE}/s: its replica took over after {took_s:.1f} s, answers were whole {back_s:.1f} s "
        f"later; {len(gone)} degraded ({', '.join(sorted(named))}); meanwhile p50 {np.median(meanwhile):.1f}, p99 "
        f"{np.quantile(meanwhile, 0.99):.1f}, worst {meanwhile.max():.1f} ms"
    )
    assert load.statuses().keys() == {200}
    assert "online_store_partial" in named
    assert back_s <= 10
