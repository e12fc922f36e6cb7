"""What qdrant-client sends to a server, beside a recording: no server runs here, so a cluster's layout is held to that.

`python -m tests.contract.test_index_requests` writes the recording again, after a change that is meant.
"""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient

from recsys.errors import IndexUnavailable
from recsys.index import Layout, ServerIndex, Vectors

RECORDING = Path(__file__).with_name("index_requests.json")
LAYOUTS = {
    "as one server": Layout(),
    "by city": Layout(by_city=True),
    "by city, replicated": Layout(by_city=True, replicas=3, write_consistency=2),
    "replicated": Layout(replicas=2, write_consistency=1),
}


class Stub:
    """Answers as a server's documentation says, and remembers who was told what; it holds no vectors."""

    def __init__(self, lost: int = 0) -> None:
        self.lost = lost  # points of each collection that are not there afterwards
        self.asked: list[dict[str, Any]] = []
        self.collections: dict[str, dict[str, Any]] = {}
        self.points: dict[str, int] = {}
        self.keys: dict[str, list[int]] = {}
        self.aliases: dict[str, str] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path, body = request.url.path, json.loads(request.content) if request.content else None
        self.asked.append({"method": request.method, "path": str(request.url.raw_path, "ascii"), "body": short(body)})
        answer = {"result": self.answer(request.method, path, body), "status": "ok", "time": 0.0}
        return httpx.Response(200, json=answer)

    def answer(self, method: str, path: str, body: Any) -> Any:
        name = (re.match(r"/collections/(?!aliases$)([^/]+)", path) or [None, ""])[1]
        match method, path.removeprefix(f"/collections/{name}" if name else ""):
            case "GET", "/collections":
                return {"collections": [{"name": n} for n in self.collections]}
            case "GET", "/aliases":
                return {"aliases": [{"alias_name": a, "collection_name": c} for a, c in self.aliases.items()]}
            case "GET", "/exists":
                return {"exists": name in self.collections}
            case "GET", "/shards":
                return {"shard_keys": [{"key": key} for key in self.keys[name]]}
            case "GET", "":
                return self.about(name)
            case "POST", "/points/count":
                return {"count": self.points[name] - self.lost}
            case "POST", "/points/query":
                return {"points": [{"id": 7, "version": 0, "score": 0.5}]}
            case "POST", "/points":
                return [{"id": i, "vector": {"embedding": [0.5, 0.5]}} for i in body["ids"]]
            case "POST", "/collections/aliases":
                for action in body["actions"]:
                    if "delete_alias" in action:
                        del self.aliases[action["delete_alias"]["alias_name"]]
                    else:
                        made = action["create_alias"]
                        self.aliases[made["alias_name"]] = made["collection_name"]
                return True
            case "PUT", "":
                self.collections[name], self.points[name], self.keys[name] = body, 0, []
                return True
            case "PUT", "/shards":
                self.keys[name].append(body["shard_key"])
                return True
            case "PUT", "/points":
                assert ("shard_key" in body) == (self.collections[name].get("sharding_method") == "custom")
                assert body.get("shard_key") in (None, *self.keys[name])
                self.points[name] += len(body["batch"]["ids"])
                return {"operation_id": 1, "status": "completed"}
            case "PUT", "/index":
                return {"operation_id": 1, "status": "completed"}
            case "DELETE", "":
                del self.collections[name]
                return True
            case _:
                raise AssertionError(f"nobody answers {method} {path}")

    def about(self, name: str) -> dict[str, Any]:
        said = self.collections[name]
        params = {key: said[key] for key in ("vectors", "sharding_method", "replication_factor") if said.get(key)}
        of_its_own = {
            "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000},
            "optimizer_config": {
                "deleted_threshold": 0.2, "vacuum_min_vector_number": 1_000, "default_segment_number": 0,
                "flush_interval_sec": 5,
            },
        }  # fmt: skip
        return {
            "status": "green", "optimizer_status": "ok", "segments_count": 1, "payload_schema": {},
            "config": {"params": params, **of_its_own},
        }  # fmt: skip


def short(body: Any) -> Any:
    """A request without the numbers of its vectors."""
    if isinstance(body, list) and len(body) == 128:
        return "128 numbers"
    if isinstance(body, list):
        return [short(one) for one in body]
    return {key: short(value) for key, value in body.items()} if isinstance(body, dict) else body


def world() -> tuple[Vectors, Vectors]:
    """Five places of three cities, four users of two."""
    rng = np.random.default_rng(0)

    def unit(n: int) -> np.ndarray:
        values = rng.normal(size=(n, 128)).astype(np.float32)
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    facets = {"price": [0, 1, 2, 3, 4], "tags": [[1], [], [2, 3], [1], [5]]}
    places = Vectors(np.arange(10, 15), np.array([2, 0, 2, 7, 0]), {"embedding": unit(5)}, facets)
    return places, Vectors(np.arange(4), np.array([0, 2, 2, 0]), {"embedding": unit(4), "people": unit(4)})


def index(stub: Stub, layout: Layout) -> ServerIndex:
    transport = httpx.MockTransport(stub)
    client = AsyncQdrantClient(url="http://qdrant:6333", check_compatibility=False, transport=transport)
    return ServerIndex(client, layout=layout)


async def session(layout: Layout) -> Stub:
    """A version published, another one, a search and a look, a rollback."""
    stub = Stub()
    made = index(stub, layout)
    places, users = world()
    for version in ("v1", "v2"):
        await made.publish(version, places, users)
    reader = await made.reader("v2")
    query = places.named["embedding"][0]
    found = await reader.search("places", query, city_id=2, limit=3, exclude=[11], where={"price": [1, 2]})
    assert found.ids.tolist() == [7]
    await reader.search("users", users.named["people"][0], city_id=0, limit=2, using="people")
    nobody = await reader.search("users", query, city_id=7, limit=2)
    assert nobody.ids.tolist() == ([] if layout.by_city else [7])
    assert sorted(await reader.vectors("places", [10, 12])) == [10, 12]
    assert await made.rollback() == "v1"
    await made.close()
    return stub


def recorded() -> dict[str, list[dict[str, Any]]]:
    return {name: asyncio.run(session(layout)).asked for name, layout in LAYOUTS.items()}


def test_what_is_sent_is_what_was_recorded():
    assert recorded() == json.loads(RECORDING.read_text(encoding="utf-8"))


def test_a_city_is_a_shard_that_holds_its_points_alone_and_the_only_one_that_is_searched():
    stub = asyncio.run(session(LAYOUTS["by city, replicated"]))
    assert stub.keys == {"places__v1": [0, 2, 7], "users__v1": [0, 2], "places__v2": [0, 2, 7], "users__v2": [0, 2]}
    made = stub.collections["places__v2"]
    assert (made["sharding_method"], made["shard_number"]) == ("custom", 1)
    assert (made["replication_factor"], made["write_consistency_factor"]) == (3, 2)
    written = [a["body"] for a in stub.asked if a["method"] == "PUT" and "places__v2/points" in a["path"]]
    assert [(b["shard_key"], b["batch"]["ids"]) for b in written] == [(0, [11, 14]), (2, [10, 12]), (7, [13])]
    assert all({p["city_id"] for p in b["batch"]["payloads"]} == {b["shard_key"]} for b in written)
    searched = [a["body"] for a in stub.asked if a["path"].endswith("/points/query")]
    assert [b["shard_key"] for b in searched] == [2, 0], "a city without points asks nobody"
    assert searched[0]["filter"]["must"][0] == {"key": "city_id", "match": {"value": 2}}, "the filter stays"


def test_by_default_nothing_of_a_cluster_is_said():
    said = json.dumps(asyncio.run(session(Layout())).asked)
    for word in ("shard", "replication", "consistency"):
        assert word not in said


def test_the_reader_goes_by_the_collection_not_by_the_settings():
    """What was published before the setting changed is found all the same."""
    stub = asyncio.run(session(Layout()))
    reader = asyncio.run(index(stub, Layout(by_city=True)).reader("v1"))
    asyncio.run(reader.search("places", world()[0].named["embedding"][0], city_id=2, limit=3))
    assert "shard_key" not in stub.asked[-1]["body"]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_points_that_a_node_did_not_take_leave_the_version_before(layout: Layout):
    stub = Stub(lost=1)
    with pytest.raises(IndexUnavailable, match=r"places__v1 must hold 5 points \(got 4\)"):
        asyncio.run(index(stub, layout).publish("v1", *world()))
    assert stub.aliases == {}


if __name__ == "__main__":
    layouts = (
        f"{json.dumps(name)}: [\n" + ",\n".join(map(json.dumps, asked)) + "\n]" for name, asked in recorded().items()
    )
    RECORDING.write_text("{\n" + ",\n".join(layouts) + "\n}\n", encoding="utf-8")
