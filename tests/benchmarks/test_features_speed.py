"""The feature store at the default size: materialize, point in time, online. Figures are printed; bars are generous.

What is compared is timed in one run, in turns: this machine's speed is not another's.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import redis
from feast import FeatureStore as Feast
from feast.repo_config import load_repo_config

from recsys.features import FeatureStore
from recsys.lake import Lake
from recsys.training.snapshots import take_snapshot
from recsys.world import WorldConfig, generate
from tests.conftest import ROOT, free_port

DAY = timedelta(days=1)


class Default:
    """A data folder of 10,000 x 10,000, its last day held out, and its jobs."""

    def __init__(self, folder: Path) -> None:
        self.dir, self.url = folder, f"redis://127.0.0.1:{free_port()}/0"
        generate(WorldConfig(), folder / "lake")
        self.path = folder / "lake" / "interactions.parquet"
        self.whole = pq.read_table(self.path)
        with Lake(folder) as lake:
            self.start, self.end = lake.horizon()
        stamp = self.whole["timestamp"]
        self.lay(self.whole.filter(pc.less(stamp, pa.scalar(self.end - DAY, stamp.type))))

    def lay(self, table: object) -> None:
        self.path.unlink()
        pq.write_table(table, self.path, compression="zstd")

    def job(self, *arguments: str) -> dict:
        env = os.environ | {"RECSYS_DATA_DIR": str(self.dir), "RECSYS_REDIS_URL": self.url}
        command = [sys.executable, "-m", "jobs", *arguments, "--json"]
        began = time.perf_counter()
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=True)
        return {**json.loads(done.stdout), "process_s": time.perf_counter() - began}


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory):
    made = Default(tmp_path_factory.mktemp("default"))
    yield made
    made.job("down")


def test_materialize_all_and_one_day_more(default: Default):
    full = default.job("materialize")
    default.lay(default.whole)
    more = default.job("materialize")
    print()
    for name, report in (("all", full), ("one day more", more)):
        took, memory = report["process_s"], report["peak_rss_mb"] / 1e3
        print(f"materialize {name}: {took:.1f} s from start to exit, {memory:.1f} GB, {report['made']}")
    pairs = full["keys_online"]["user_place"]
    client = redis.Redis.from_url(default.url)
    print(f"keys {full['keys_online']}, {client.info('memory')['used_memory'] / 1e6:.0f} MB")
    client.close()
    assert pairs > 500_000
    assert more["made"].startswith("rows after")
    assert full["seconds"] < 120
    assert more["process_s"] < full["process_s"] / 4
    assert more["process_s"] <= 10


def test_point_in_time_set_of_the_whole_graph(default: Default):
    store = FeatureStore(ROOT / "feature_repo", data_dir=default.dir, redis_url=default.url)
    with Lake(default.dir) as lake:
        began = time.perf_counter()
        snapshot = take_snapshot(lake, store, default.end, default.end)
        took = time.perf_counter() - began
    store.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"\npoint in time, {len(snapshot.pair_keys):,} pairs, {len(snapshot.user_online):,} users: {took:.1f} s, "
          f"this process at most {peak:.1f} GB")  # fmt: skip
    assert took < 60


def in_turns(calls: dict[str, Callable[[], object]], rounds: int = 200) -> dict[str, np.ndarray]:
    """Milliseconds of each call, (rounds,), one after the other."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds + 20):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if i >= 20:
                took[name].append((time.perf_counter() - began) * 1e3)
    return {name: np.array(values) for name, values in took.items()}


def test_one_user_and_200_candidates_with_their_pairs(default: Default):
    now, ids = default.end, np.random.default_rng(0).choice(10_000, 200, replace=False)

    def opened(cache_s: float) -> FeatureStore:
        return FeatureStore(
            ROOT / "feature_repo", data_dir=default.dir, redis_url=default.url, timeout_s=1.0, feature_cache_s=cache_s
        )

    plain, cached, client = opened(0.0), opened(1.0), redis.Redis.from_url(default.url)
    config = load_repo_config(ROOT / "feature_repo", ROOT / "feature_repo" / "feature_store.yaml")
    config.registry.path = str(default.dir / "registry.db")
    config.online_store.connection_string = f"127.0.0.1:{default.url.rsplit(':', 1)[1].split('/')[0]},db=0"
    feast = Feast(config=config)
    scalars = [f"place_profile:{f}" for f in ("city_id", "neighborhood_id", "price_band", "typical_time_slot", "name")]
    entities = [{"place_id": int(i)} for i in ids]
    places = plain.rows("place_activity")
    keys, field = [bytes(k) for k in places.keys([ids])], places.fields["state"]

    def pipeline() -> object:
        with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hget(key, field)
            return pipe.execute()

    took = in_turns(
        {
            "user, 200 places and pairs, no cache": lambda: plain.rank_places(42, ids, now),
            "user, 200 places and pairs, warm cache": lambda: cached.rank_places(42, ids, now),
            "Feast's own call, 5 scalars of 200 places": lambda: feast.get_online_features(scalars, entities).to_dict(),
            "redis-py pipeline, one field of 200 places": pipeline,
        }
    )
    print()
    for name, ms in took.items():
        print(f"{name}: p50 {np.median(ms):.2f} ms, p99 {np.quantile(ms, 0.99):.2f} ms")
    cold, warm, feasts, _ = (float(np.median(ms)) for ms in took.values())
    plain.close()
    cached.close()
    client.close()
    assert cold < 10
    assert warm < 3
    assert cold < feasts


@pytest.mark.parametrize("n", [100_000])
def test_reads_stay_as_quick_and_as_small(default: Default, n: int):
    store = FeatureStore(ROOT / "feature_repo", data_dir=default.dir, redis_url=default.url, timeout_s=1.0)
    rng, now = np.random.default_rng(1), default.end
    took, memory = [], []
    for i in range(n):
        ids = rng.integers(0, 10_000, 20)
        began = time.perf_counter()
        store.rank_places(int(ids[0]), ids, now)
        took.append(time.perf_counter() - began)
        if i in (n // 10, n - 1):
            memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6)
    store.close()
    first, last = (float(np.median(part)) * 1e3 for part in (took[: n // 10], took[-n // 10 :]))
    print(f"\n{n:,} reads: p50 {first:.2f} ms at first, {last:.2f} ms at last, {memory[0]:.0f} and {memory[1]:.0f} MB")
    assert last < 1.5 * first
    assert memory[1] < memory[0] * 1.05
