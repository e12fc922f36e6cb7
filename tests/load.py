"""Requests at a rate, or as fast as so many clients can: what each took, and what came back."""

import gc
import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

Make = Callable[[int], tuple[str, dict[str, Any]]]  # the n-th request: its path and body


@dataclass(frozen=True)
class Answer:
    """One answer; status 0 where the connection broke. `at` is in seconds since the load began, `ms` its latency."""

    at: float
    ms: float
    status: int
    headers: dict[str, str] = field(repr=False, default_factory=dict)
    body: bytes = field(repr=False, default=b"")

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Load:
    """Answers of a load that took so many seconds."""

    seconds: float
    answers: list[Answer] = field(repr=False)

    def ms(self, q: float, status: int = 200) -> float:
        """A quantile of the latencies of the answers with a status."""
        return float(np.quantile([a.ms for a in self.answers if a.status == status], q))

    def statuses(self) -> dict[int, int]:
        return dict(Counter(a.status for a in self.answers))

    def __str__(self) -> str:
        ok = sum(a.status == 200 for a in self.answers)
        return (
            f"{len(self.answers):,} requests in {self.seconds:.1f} s, {ok / self.seconds:.0f} answers/s, p50 "
            f"{self.ms(0.5):.1f} ms, p99 {self.ms(0.99):.1f} ms, worst {self.ms(1):.1f} ms, {self.statuses()}"
        )


class Client:
    """One connection that stays open; a broken one is opened again by the next request."""

    def __init__(self, base: str, timeout_s: float = 30.0) -> None:
        at = urlsplit(base)
        self._connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=timeout_s)

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        try:
            self._connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
            answer = self._connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return 0, {}, b""

    def close(self) -> None:
        self._connection.close()


def closed_loop(base: str, make: Make, *, clients: int, seconds: float) -> Load:
    """Each client asks again as soon as it is answered."""
    return _run(base, make, clients, seconds, lambda n: 0.0)


def open_loop(base: str, make: Make, *, rate: float, seconds: float, clients: int = 64) -> Load:
    """Requests at a steady rate, whatever the service does; latencies count from when a request was due."""
    return _run(base, make, clients, seconds, lambda n: n / rate)


def _run(base: str, make: Make, clients: int, seconds: float, due: Callable[[int], float]) -> Load:
    gc.collect()
    gc.freeze()  # else this process may look for garbage in the middle, and every answer seems a third of a second late
    answers: list[Answer] = []
    lock, numbers = threading.Lock(), iter(range(10**9))
    began = time.perf_counter()

    def mine() -> Iterator[tuple[int, float]]:
        while True:
            with lock:
                n = next(numbers)
            if due(n) >= seconds or time.perf_counter() - began >= seconds:
                return
            yield n, due(n)

    def run() -> None:
        client = Client(base)
        for n, at in mine():
            path, body = make(n)
            if (early := began + at - time.perf_counter()) > 0:
                time.sleep(early)
            start = max(began + at, began) if at else time.perf_counter()
            status, headers, content = client.post(path, body)
            now = time.perf_counter()
            answers.append(Answer(start - began, (now - start) * 1e3, status, headers, content))
        client.close()

    with ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(run) for _ in range(clients)]:
            done.result()
    return Load(time.perf_counter() - began, answers)
