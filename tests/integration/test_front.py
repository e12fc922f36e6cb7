"""A served process, and what the world sends it: too much, too slowly, nonsense, no key; and a signal in the middle."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from api.keys import make
from api.server import MAX_HEAD_BYTES
from recsys.events import EventLog
from recsys.features import LiveStates
from tests.live import fill_ties, open_store, serving
from tests.served import until

DEADLINE_S = 1.0
AT_WORK = 24
CROWD = 500
BURST = 600
SECRETS, KEYS = zip(*(make(name) for name in ("tests", "crowd", "greedy")), strict=True)
KEY = {"x-api-key": SECRETS[0]}
PLACES = "/recommend/places"


@dataclass
class Front:
    process: subprocess.Popen[bytes]
    base: str
    port: int
    folder: Path
    client: httpx.Client


@pytest.fixture(scope="module")
def front(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front")
    url = redis_url.removesuffix("/0") + "/7"
    store = open_store(url, folder)
    store.apply()
    fill_ties(LiveStates(store))
    store.close()
    env = {
        "RECSYS_API_KEYS": ",".join(key.entry for key in KEYS), "RECSYS_RATE_LIMIT": "0.1",
        "RECSYS_RATE_BURST": str(BURST), "RECSYS_REQUEST_TIMEOUT_S": str(DEADLINE_S), "RECSYS_KEEP_ALIVE_S": "60",
        "RECSYS_MAX_IN_FLIGHT": str(AT_WORK),
    }  # fmt: skip
    with serving(folder, url, **env) as (process, base), httpx.Client(base_url=base, timeout=30) as client:
        yield Front(process, base, urlsplit(base).port or 0, folder, client)


def problem(answer: httpx.Response, status: int) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["request_id"]) == (status, answer.headers["x-request-id"])
    assert_tells_nothing(answer.text)
    return body


def assert_tells_nothing(text: str) -> None:
    for secret in (*SECRETS, *(key.sha256 for key in KEYS)):
        assert secret not in text
    assert not re.search(r'Traceback|File \\?"|127\.0\.0\.1|localhost|redis://|/site-packages/|uvicorn', text), text


def parsed(raw: bytes) -> tuple[int, dict[str, str], dict]:
    """One answer that ends with its connection."""
    head, _, body = raw.partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    assert_tells_nothing(raw.decode())
    return int(line.split()[1]), dict(h.lower().split(": ", 1) for h in headers), json.loads(body)


def is_problem(raw: bytes, status: int) -> None:
    got, headers, body = parsed(raw)
    assert (got, body["status"]) == (status, status), raw
    assert (headers["content-type"], headers["connection"]) == ("application/problem+json", "close")
    assert re.fullmatch("[0-9a-f]{32}", body["request_id"])
    assert headers["x-request-id"] == body["request_id"]


def told(front: Front, *parts: bytes) -> bytes:
    """What comes until the other side closes."""
    with socket.create_connection(("127.0.0.1", front.port), timeout=10) as s:
        for part in parts:
            s.sendall(part)
        return b"".join(iter(lambda: s.recv(65_536), b""))


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: x", *headers, "", ""]).encode()


# ---------------------------------------------------------------------------------------------------- who may ask


def test_no_key_a_wrong_key_and_too_often(front: Front):
    body = {"user_id": 4}
    refused = front.client.post(PLACES, json=body)
    problem(refused, 401)
    assert "www-authenticate" in refused.headers
    problem(front.client.post(PLACES, json=body, headers={"x-api-key": SECRETS[0] + "x"}), 403)
    problem(front.client.post(PLACES, json=body, headers={"authorization": f"Bearer {KEYS[0].sha256}"}), 403)
    assert front.client.post(PLACES, json=body, headers=KEY).status_code == 200
    greedy = {"x-api-key": SECRETS[2]}
    for _ in range(BURST):
        answer = front.client.get("/taxonomy", headers=greedy)
        assert answer.status_code == 200
    refused = front.client.get("/taxonomy", headers=greedy)
    problem(refused, 429)
    assert 1 <= int(refused.headers["retry-after"]) <= 10
    assert front.client.get("/taxonomy", headers=KEY).status_code == 200


# ------------------------------------------------------------------------------------------------------- nonsense


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        (PLACES, b" " * 10_000_000, 413),
        ("/events", b" " * 10_000_000, 413),
        (PLACES, json.dumps({"user_id": 1, "exclude_place_ids": list(range(10_000))}).encode(), 422),
        (PLACES, b'{"user_id": NaN}', 422),
        (PLACES, b'{"user_id": 1, "diversity": NaN}', 422),
        (PLACES, b'{"user_id": 1, "novelty": Infinity}', 422),
        (PLACES, b'{"user_id": 1e400}', 422),
        (PLACES, b'{"user_id": ' + b"9" * 4_000 + b"}", 422),
        (PLACES, b'{"user_id": ' + b"9" * 30_000 + b"}", 400),
        (PLACES, b'{"user_id": 1, "city_id": 18446744073709551616}', 422),
        (PLACES, b'{"user_id": 1, "exclude_place_ids": [99999999999999999999]}', 422),
        (PLACES, '{"user_id": "Ж😀\\u202e\\u0000"}'.encode(), 404),
        (PLACES, '{"пользователь": 1, "user_id": 1}'.encode(), 422),
        (PLACES, b'{"user_id": "\xff\xfe"}', 400),
        (PLACES, b"[" * 60_000, 400),
        ("/events", b'{"events": [{"id":"", "user_id": 1, "place_id": 1, "kind": "view", "dwell_seconds": NaN}]}', 422),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_nonsense_is_refused_and_the_connection_goes_on(front: Front, path: str, content: bytes, status: int):
    sent = {"content-type": "application/json", **KEY}
    problem(front.client.post(path, content=content, headers=sent), status)
    assert front.client.post(PLACES, json={"user_id": 4}, headers=KEY).status_code == 200


def test_a_body_in_chunks_without_end_is_413(front: Front):
    problem(front.client.post(PLACES, content=(b" " * 4096 for _ in range(2_500)), headers=KEY), 413)


def test_what_is_no_http_and_heads_that_are_too_large(front: Front):
    for garbage in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
        b"HELLO\r\n\r\n",
        b"GET\r\n\r\n\r\n",
    ):
        is_problem(told(front, garbage), 400)
    limit = MAX_HEAD_BYTES
    is_problem(told(front, get("/health", f"x-a: {'a' * limit}")), 431)
    is_problem(told(front, get("/health?" + "a" * limit)), 431)
    is_problem(told(front, get("/health", *(f"x-{i}: {'a' * 100}" for i in range(limit // 100)))), 431)
    endless = [b"a" * 4096] * 20
    is_problem(told(front, b"GET /health HTTP/1.1\r\nx-a: ", *endless), 431)
    is_problem(told(front, b"GET /health?", *endless), 431)
    answer = told(front, get("/health", f"x-a: {'a' * (limit - 200)}", "connection: close"))
    assert parsed(answer)[0] == 200


def test_requests_that_follow_each_other_without_waiting_are_all_answered(front: Front):
    body = json.dumps({"user_id": 4, "top_k": 1}).ljust(60_000).encode()
    post = f"POST {PLACES} HTTP/1.1\r\nhost: x\r\nx-api-key: {SECRETS[0]}\r\ncontent-length: {len(body)}\r\n".encode()
    post += b"content-type: application/json\r\n\r\n" + body
    raw = told(front, (post + get("/health")) * 3 + get("/health", "connection: close"))
    assert raw.count(b"HTTP/1.1 200 OK") == 7


# --------------------------------------------------------------------------------------------------- slow clients


def test_who_sends_slowly_is_given_up_and_holds_up_nobody(front: Front):
    """All at once; each is answered or closed about when the deadline is over, however it goes on sending."""
    post = f"POST {PLACES} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n"
    unkeyed, keyed = f"{post}\r\n".encode(), f"{post}x-api-key: {SECRETS[0]}\r\n\r\n".encode()

    async def slow(first: bytes, drop: bytes) -> tuple[bytes, float]:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(first)

        async def trickle() -> None:
            while drop:
                await asyncio.sleep(0.1)
                writer.write(drop)

        dropping = asyncio.create_task(trickle())
        async with asyncio.timeout(20):
            got = await _all(reader)
        took = time.monotonic() - began
        dropping.cancel()
        writer.transport.abort()
        return got, took

    async def scenario() -> None:
        head, nothing, body = 408, None, 408
        cases = [
            (b"", b"", nothing), (b"", b"\r\n", nothing), (b"G", b"", head), (b"GET / HTTP/1.1\r\nx: ", b"y", head),
            (b"GET / HTTP/1.1\r\n", b"a: b\r\n", head), (keyed, b"", body), (keyed + b"{", b" ", body),
            (get("/health") + b"GET ", b"", head), (unkeyed, b"", 401), (unkeyed, b" ", 401),
        ]  # fmt: skip
        crowd = [asyncio.create_task(slow(first, drop)) for first, drop, _ in cases * 10]
        began = time.monotonic()
        async with httpx.AsyncClient(base_url=front.base, timeout=5) as client:
            while not all(task.done() for task in crowd):
                start = time.monotonic()
                assert (await client.post(PLACES, json={"user_id": 4}, headers=KEY)).status_code == 200
                assert time.monotonic() - start < 1
                await asyncio.sleep(0.1)
        print(f"\nall given up after {time.monotonic() - began:.2f} s")
        for (raw, took), (first, drop, status) in zip([task.result() for task in crowd], cases * 10, strict=True):
            assert 0.9 * DEADLINE_S < took < 6 * DEADLINE_S, (first, drop, took)
            if status is None:
                assert raw == b""
            else:
                last = raw[raw.rindex(b"HTTP/1.1 ") :]
                assert parsed(last)[0] == status, (first, drop, raw)

    asyncio.run(scenario())


async def _all(reader: asyncio.StreamReader) -> bytes:
    """What comes until the other side closes, one way or the other."""
    got = b""
    try:
        while part := await reader.read(65_536):
            got += part
    except ConnectionResetError:
        return got
    return got


# ---------------------------------------------------------------------------------------------------------- crowds


def test_hundreds_of_connections_at_once_are_all_answered(front: Front):
    """More than may be at work get 503 at once; the others an answer; and health goes on."""
    content = json.dumps({"user_id": 4}).encode()
    request = (
        f"POST {PLACES} HTTP/1.1\r\nhost: x\r\nx-api-key: {SECRETS[1]}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
    ).encode() + content

    async def scenario() -> None:
        streams = [await asyncio.open_connection("127.0.0.1", front.port) for _ in range(CROWD)]
        async with httpx.AsyncClient(base_url=front.base, timeout=10) as client:
            for _, writer in streams:
                writer.write(request)
            answers = asyncio.gather(*(_all(reader) for reader, _ in streams))
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/ready")).status_code == 200
            found = [parsed(raw) for raw in await answers]
        for _, writer in streams:
            writer.close()
        statuses = [status for status, _, _ in found]
        assert set(statuses) <= {200, 503}
        assert statuses.count(200) >= 16
        for status, headers, body in found:
            if status == 503:
                assert (body["detail"], headers["retry-after"]) == ("too many requests at once", "1")
        print(f"\n{CROWD} at once: {statuses.count(200)} answered, {statuses.count(503)} refused")

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------------------------ end


def test_the_log_of_all_of_this_tells_no_secret_no_address_and_of_no_fault(front: Front):
    """Before the signal: it is about what the tests above sent."""
    lines = (front.folder / "served.log").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert found
    for line in lines:
        assert_tells_nothing(line)
    assert {line["level"] for line in found} <= {"info", "warning"}
    assert not any("exception" in line for line in found)
    assert {"tests", "crowd", "greedy"} == {line["key"] for line in found if "key" in line}


def test_a_signal_lets_what_has_begun_be_finished(front: Front):
    log = EventLog(front.folder / "events" / "test")
    kept: set[str] = set()

    async def scenario() -> None:
        event = {"user_id": 1, "place_id": 1, "kind": "view"}
        async with httpx.AsyncClient(base_url=front.base, timeout=30, headers=KEY) as client:

            async def sent(id: str) -> httpx.Response:
                return await client.post("/events", json={"events": [{"id": id, **event}]})

            async def at_ease() -> bool:
                answer = await client.post(PLACES, json={"user_id": 4})
                return answer.status_code == 200 and "load" not in answer.json()["degraded"]

            await until(at_ease, "what the crowd above left is over")
            with log.appending():  # so that they wait, for up to two seconds
                begun = {f"last-{i}": asyncio.create_task(sent(f"last-{i}")) for i in range(AT_WORK + 8)}

                async def at_work() -> bool:
                    return sum(task.done() for task in begun.values()) == 8

                await until(at_work, "as many are at work as may be, the others refused", 2)
                idle = await asyncio.open_connection("127.0.0.1", front.port)
                front.process.send_signal(signal.SIGTERM)
                assert await _all(idle[0]) == b"", "a connection without a request is closed"
                idle[1].close()
                with pytest.raises(httpx.ConnectError):
                    await asyncio.to_thread(httpx.get, f"{front.base}/health")
            for id, task in begun.items():
                answer = await task
                assert answer.status_code in (200, 503), answer.text
                if answer.status_code == 200:
                    assert answer.json()["accepted"] == 1
                    kept.add(id)

    asyncio.run(scenario())
    assert len(kept) == AT_WORK
    assert front.process.wait(10) == -signal.SIGTERM
    log.refresh()
    assert {event.id for event in log.read()} == kept
