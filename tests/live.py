"""A live store by hand, an app that takes events, and what the states must be after some: recounted, not folded."""

import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa

from api.state import State
from recsys.aggregates.definitions import DAY_US, PLACE_COUNTERS, RECENT_PLACES, USER_COUNTERS, USER_PLACE
from recsys.events import Event, EventLog, Folder, Intake
from recsys.features import FeatureStore, LiveStates, Mark
from tests.conftest import ROOT, Filled, free_port
from tests.parts import N_PLACES, N_USERS, NOW, make_engine

FILLED = "made by hand"
TIES = [(u, v) for u, v in combinations(range(12), 2) if (u + v) % 2]  # the others do not know each other


def wall() -> datetime:
    return datetime.now(UTC)


def open_store(redis_url: str, data_dir: Path, timeout_s: float = 2.0, feature_cache_s: float = 0.0) -> FeatureStore:
    return FeatureStore(
        ROOT / "feature_repo", data_dir=data_dir, redis_url=redis_url, timeout_s=timeout_s,
        feature_cache_s=feature_cache_s,
    )  # fmt: skip


def fill_ties(live: LiveStates) -> None:
    """An online store without any history but ties; everything else begins with the first event."""
    live.clear()
    rows = pa.table(
        {
            "user_u": [u for u, _ in TIES],
            "user_v": [v for _, v in TIES],
            "event_timestamp": pa.array([NOW] * len(TIES), pa.timestamp("us", "UTC")),
            "state": [[0.0, 0.0, 0.5, 0.0]] * len(TIES),
        }
    )
    live.fill("user_user", rows, seq=0, end=NOW, wall=wall())
    live.set_mark(Mark(FILLED, 0))


def make_events(rng: np.random.Generator, n: int, prefix: str = "") -> list[Event]:
    """Events of a dozen people at a few places over three days, a third of them visits."""
    kinds = ("view", "view", "like", "save", "share", "attend", "attend", "attend")
    return [
        Event.made(
            id=f"{prefix}{i}",
            kind=kinds[rng.integers(len(kinds))],
            user_id=int(rng.integers(12)),
            place_id=int(rng.integers(5)),
            moment=NOW - timedelta(seconds=int(rng.integers(3 * 86_400))),
            dwell_s=float(rng.integers(5, 600)),
            now=NOW,
        )
        for i in range(n)
    ]


def recount(events: Sequence[Event]) -> dict[str, dict[tuple[int, ...], list[float]]]:
    """States after some events of a log, without `seq`: sums over all of them, not steps. Ties: (met,)."""
    rows = [e.interaction() for e in events]
    out: dict[str, dict[tuple[int, ...], list[float]]] = defaultdict(dict)
    for view, key, counters in (
        ("user_activity", lambda e: (e.user_id,), USER_COUNTERS),
        ("place_activity", lambda e: (e.place_id,), PLACE_COUNTERS),
    ):
        for k in {key(e) for e in rows}:
            own = [e for e in rows if key(e) == k]
            state = [float(max(e.at_us for e in own)), float(own[0].at_us // DAY_US)]
            for day in sorted({e.at_us // DAY_US for e in own}):
                there = [e for e in own if e.at_us // DAY_US == day]
                state += [float(day), *(sum(c.fold(e) for e in there) for c in counters)]
            out[view][k] = state
    for k in {(e.user_id, e.place_id) for e in rows}:
        own = [e for e in rows if (e.user_id, e.place_id) == k]
        sums = [sum(c.fold(e) for e in own) for c in USER_PLACE]
        out["user_place"][k] = [float(len(own)), float(max(e.at_us for e in own)), *sums]
    for user in {e.user_id for e in rows}:
        own = sorted((e for e in rows if e.user_id == user), key=lambda e: (-e.at_us, -e.place_id))[:RECENT_PLACES]
        out["user_recent"][user,] = [float(x) for e in own for x in (e.place_id, e.at_us)]
    crowds = defaultdict(set)
    for e in rows:
        if e.attended:
            crowds[e.place_id, e.at_us // DAY_US].add(e.user_id)
    met = dict.fromkeys(TIES, 0.0)
    for crowd in crowds.values():
        for pair in combinations(sorted(crowd), 2):
            if pair in met:
                met[pair] += 1
    out["user_user"] = {pair: [n] for pair, n in met.items()}
    return out


def read_states(live: LiveStates, like: dict[str, dict[tuple[int, ...], list[float]]]) -> dict[str, dict]:
    """The states online of the keys of a recount, without `seq`."""
    names = {
        "user_activity": ("user_id",),
        "user_recent": ("user_id",),
        "place_activity": ("place_id",),
        "user_place": ("user_id", "place_id"),
        "user_user": ("user_u", "user_v"),
    }
    found: dict[str, dict] = {}
    for view, states in like.items():
        keys = sorted(states)
        ids = {name: np.array([k[i] for k in keys], dtype=np.int64) for i, name in enumerate(names[view])}
        (answers,) = live.read([live.wanted(view, **ids)])
        cut = slice(1, 2) if view == "user_user" else slice(1, None)
        found[view] = {k: None if a is None else a[cut].tolist() for k, a in zip(keys, answers, strict=True)}
    return found


def assert_states(live: LiveStates, events: Sequence[Event]) -> None:
    """What is online is exactly what the events say: counts to the last bit, sums up to the order of adding."""
    expected = recount(events)
    for view, states in read_states(live, expected).items():
        assert set(states) == set(expected[view])
        for key, state in states.items():
            assert state is not None, (view, key)
            np.testing.assert_allclose(state, expected[view][key], rtol=1e-12, err_msg=f"{view} {key}")


class Ticking:
    """A clock that begins at NOW and goes on."""

    def __init__(self) -> None:
        self._began = datetime.now(UTC)

    def __call__(self) -> datetime:
        return NOW + (datetime.now(UTC) - self._began)


def make_state(
    folder: Path, redis_url: str, *, now=None, feature_cache_s: float | None = None, timeout_s: float = 2.0
) -> State:
    """An app's parts: random heads, but a log and an online store that are real.

    Ranking reads features in memory; with a `feature_cache_s`, those of the online store.
    """
    now = now or Ticking()
    store = open_store(redis_url, folder)
    held = ExitStack()
    held.callback(store.close)
    engine = make_engine(folder / "index")
    if feature_cache_s is not None:
        features = open_store(redis_url, folder, timeout_s, feature_cache_s)
        engine = replace(engine, features=features, candidates=N_PLACES)
    intake = Intake(Folder(EventLog(folder / "events" / "test"), LiveStates(store), now=now, wall=wall))
    return State(
        engine,
        now,
        events=intake,
        known_users=np.arange(N_USERS - 1),
        known_places=np.arange(N_PLACES),
        held=held,
    )


def materialized(filled: Filled, folder: Path, redis_url: str) -> None:
    """The small world in a folder and a database of its own, filled by the job itself."""
    from jobs import materialize
    from jobs.report import Report
    from recsys.settings import Settings

    for part in ("lake", "features"):
        shutil.copytree(filled.data_dir / part, folder / part)
    settings = Settings(data_dir=folder, redis_url=redis_url, feature_repo=ROOT / "feature_repo")
    materialize.run(settings, Report("materialize", settings.reports))


@contextmanager
def serving(
    folder: Path, redis_url: str, *, feature_cache_s: float | None = None, timeout_s: float = 2.0, **env: str
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The app as a process of its own, on a folder that outlives it; killed at the end if it still runs.

    With a `feature_cache_s` it ranks by what is in the online store; with 0, at a moment that stands still:
    of two answers to one question, the second differs where features did. `env`: settings.
    """
    port = free_port()
    with (folder / "served.log").open("ab") as out:
        command = [sys.executable, "-m", "tests.live", str(folder), redis_url, str(port)]
        command += [] if feature_cache_s is None else [str(feature_cache_s), str(timeout_s)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env=os.environ | env)
    base = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while not _answers(base):
            assert process.poll() is None, (folder / "served.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "it did not start in time"
            time.sleep(0.02)
        yield process, base
    finally:
        process.kill()
        process.wait()


def _answers(base: str) -> bool:
    try:
        return httpx.get(f"{base}/health").status_code == 200
    except httpx.HTTPError:
        return False


if __name__ == "__main__":  # python -m tests.live FOLDER REDIS_URL PORT [FEATURE_CACHE_S TIMEOUT_S]: the app
    from api.app import create_app
    from api.server import Server, config
    from recsys.settings import Settings

    cache_s = float(sys.argv[4]) if sys.argv[4:] else None
    clock = (lambda: NOW) if cache_s == 0 else None
    timeout_s = float(sys.argv[5]) if sys.argv[5:] else 2.0
    state = make_state(Path(sys.argv[1]), sys.argv[2], now=clock, feature_cache_s=cache_s, timeout_s=timeout_s)
    app = create_app(Settings(), ready=state)
    Server(config(app, Settings(port=int(sys.argv[3]))), lambda: None, deaf=False).run()
