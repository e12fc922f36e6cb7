"""A hundred thousand requests of all kinds while people block, places are hidden and stores fail: nothing leaks.

RECSYS_BENCH_REQUESTS says how many; the rules are checked by a plain reading of the small world's rows.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from api.app import create_app
from api.state import State
from recsys.breaker import THRESHOLD
from recsys.recommend.engine import Engine
from recsys.settings import Settings
from tests.parts import N_AREAS, N_CITIES, N_PLACES, N_USERS, NOW, MemoryFeatures, make_engine

REQUESTS = int(os.environ.get("RECSYS_BENCH_REQUESTS", 100_000))
DECIDED, DOWN = 0.05, 0.05  # share of the requests that change who may see what; share of the time without the store
KINDS = ("places", "people", "groups")


class NoPairs(MemoryFeatures):
    """Features that are drawn once: the rules are what is looked at here."""

    drawn = np.random.default_rng(0).random((N_USERS + N_PLACES, 64), dtype=np.float32)

    def _candidates(self, user_id: int, ids: Any, width: int) -> Any:
        return replace(super()._candidates(user_id, [], width), features=self.drawn[np.asarray(ids, dtype=int), :width])


@dataclass
class Decided:
    """Who may not be shown to whom, as this program said it."""

    blocks: set[tuple[int, int]] = field(default_factory=set)
    hidden: set[int] = field(default_factory=set)

    def apart(self, a: int, b: int) -> bool:
        return (a, b) in self.blocks or (b, a) in self.blocks


def some(rng: np.random.Generator, n: int, most: int) -> list[int]:
    return [int(i) for i in rng.choice(n, size=rng.integers(1, most + 1), replace=False)]


def request(rng: np.random.Generator) -> tuple[str, dict[str, Any]]:
    """A valid request of some kind, with some of the fields that it may have."""
    kind = KINDS[rng.choice(3, p=(0.5, 0.35, 0.15))]
    body: dict[str, Any] = {"city_id": int(rng.integers(N_CITIES)), "top_k": int(rng.integers(1, 101))}
    if rng.random() < 0.5:
        body["time_slot"] = int(rng.integers(6))
    if kind == "people":
        body["user_id"] = int(rng.integers(N_USERS - 1))
        if rng.random() < 0.5:
            body["target_place_id"] = int(rng.integers(N_PLACES))
        return kind, body
    if kind == "groups":
        body["user_ids"] = [int(i) for i in rng.choice(N_USERS - 1, size=rng.integers(2, 5), replace=False)]
        body["strategy"] = ("least_misery", "average")[rng.integers(2)]
    else:
        body["user_id"] = int(rng.integers(N_USERS - 1))
    if rng.random() < 0.4:
        body["exclude_place_ids"] = some(rng, N_PLACES, 60)
    body["exclude_visited"] = bool(rng.random() < 0.3)
    body["diversity"], body["novelty"] = (float(rng.choice([0, 0, 0.4, 1])) for _ in range(2))
    if rng.random() < 0.4:
        low, high = sorted(int(v) for v in rng.integers(5, size=2))
        wanted = {
            "price": {"min": low, "max": high}, "categories": some(rng, 5, 3), "tags": some(rng, 50, 30),
            "neighborhoods": some(rng, N_AREAS, 3), "open_slot": int(rng.integers(6)),
        }  # fmt: skip
        body["filters"] = {name: value for name, value in wanted.items() if rng.random() < 0.4}
    return kind, body


def leaks(engine: Engine, decided: Decided, kind: str, body: dict[str, Any], answer: dict[str, Any]) -> Iterator[str]:
    """What an answer holds that it must not."""
    found = [r["user_id" if kind == "people" else "place_id"] for r in answer["recommendations"]]
    if len(found) != len(set(found)) or len(found) > body["top_k"]:
        yield "one twice, or too many"
    if kind == "people":
        user = body["user_id"]
        for peer in found:
            if peer == user or peer % N_CITIES != body["city_id"]:
                yield "oneself, or of another city"
            if decided.apart(user, peer):
                yield "blocked"
        return
    users = body.get("user_ids") or [body["user_id"]]
    visited = set(engine.catalogue.sources.memory.counts[users].indices.tolist()) if body["exclude_visited"] else set()
    wanted = body.get("filters", {})
    for place in found:
        row = engine.features.place_rows[place]
        if row.city_id != body["city_id"]:
            yield "of another city"
        if place in decided.hidden:
            yield "hidden"
        if place in body.get("exclude_place_ids", ()) or place in visited:
            yield "excluded, or visited"
        price = wanted.get("price", {"min": 0, "max": 4})
        if not (
            price["min"] <= row.price_band <= price["max"]
            and ("categories" not in wanted or row.category_one_hot[wanted["categories"]].any())
            and ("tags" not in wanted or row.fine_tag_vector[wanted["tags"]].any())
            and row.neighborhood_id in wanted.get("neighborhoods", range(N_AREAS))
            and wanted.get("open_slot") in (None, row.typical_time_slot)
        ):
            yield "filtered out"


async def decide(client: httpx.AsyncClient, rng: np.random.Generator, decided: Decided) -> None:
    """Block, unblock, hide or show."""
    on = rng.random() < 0.55
    if rng.random() < 0.5:
        place = int(rng.integers(N_PLACES))
        answer = await client.request("PUT" if on else "DELETE", f"/places/{place}/hidden")
        (decided.hidden.add if on else decided.hidden.discard)(place)
    else:
        user, other = (int(i) for i in rng.choice(N_USERS - 1, size=2, replace=False))
        if on:
            answer = await client.put(f"/users/{user}/blocks", json={"user_ids": [other]})
        else:
            answer = await client.delete(f"/users/{user}/blocks", params={"blocked_id": other})
        (decided.blocks.add if on else decided.blocks.discard)((user, other))
    assert answer.status_code == 200, answer.text


async def everything(engine: Engine, features: MemoryFeatures) -> tuple[Counter[str], Counter[str]]:
    rng, decided = np.random.default_rng(11), Decided()
    asked, broken = Counter[str](), Counter[str]()
    app = create_app(Settings(_env_file=None), ready=State(engine, lambda: NOW))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client,
    ):
        for n in range(REQUESTS):
            features.down = n % 1_000 < 1_000 * DOWN
            if rng.random() < DECIDED:
                await decide(client, rng, decided)
                continue
            kind, body = request(rng)
            answer = await client.post(f"/recommend/{kind}", json=body)
            if answer.status_code != 200:
                broken[f"{answer.status_code} {answer.json()['detail']}"] += 1
                continue
            said = answer.json()
            broken.update(leaks(engine, decided, kind, body, said))
            asked[kind] += 1
            asked["items"] += len(said["recommendations"])
            asked["degraded"] += bool(said["degraded"])
            if features.down and n % 1_000 > THRESHOLD and not said["degraded"] and kind == "places":
                broken["without the store, and it does not say so"] += 1
    asked["blocks"], asked["hidden"] = len(decided.blocks), len(decided.hidden)
    return asked, broken


def test_nothing_leaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_engine(tmp_path / "index")
    assert isinstance(made.features, MemoryFeatures)
    features = NoPairs(made.features.user_rows, made.features.place_rows)
    engine = replace(made, features=features, candidates=20)
    began = time.perf_counter()
    asked, broken = asyncio.run(everything(engine, features))
    with capsys.disabled():
        print(f"\n{REQUESTS:,} requests in {time.perf_counter() - began:.0f} s: {dict(asked)}; leaks: {dict(broken)}")
    assert broken == {}
    assert asked["degraded"] >= 0.8 * DOWN * (1 - DECIDED) * REQUESTS
    assert all(asked[kind] > 0.1 * REQUESTS for kind in KINDS)
