"""Three times what the service can answer: those who are answered are in time, the others hear so at once."""

from pathlib import Path
from typing import Any

from tests.conftest import Filled
from tests.live import materialized, serving
from tests.load import closed_loop, open_loop

SECONDS, CLIENTS = 3.0, 16


def test_three_times_the_capacity(filled: Filled, redis_url: str, tmp_path: Path):
    url = redis_url.rpartition("/")[0] + "/8"
    materialized(filled, tmp_path, url)

    def make(n: int) -> tuple[str, dict[str, Any]]:
        body = {"user_id": n % 50, "city_id": n % 2, "top_k": 5}
        return f"/recommend/{'people' if n % 5 == 0 else 'places'}", body

    with serving(tmp_path, url, feature_cache_s=1.0, timeout_s=0.05) as (_, base):
        closed_loop(base, make, clients=4, seconds=1.0)  # warm
        full = closed_loop(base, make, clients=CLIENTS, seconds=SECONDS)
        capacity = len(full.answers) / full.seconds
        normal = open_loop(base, make, rate=0.5 * capacity, seconds=SECONDS)
        over = open_loop(base, make, rate=3 * capacity, seconds=SECONDS, clients=96)
    refused = sum(a.status == 503 for a in over.answers)
    print(
        f"\nat work all the time: {full}\nat half of that: {normal}\nat three times: {over}\n"
        f"refused {refused / len(over.answers):.0%}, p50 {over.ms(0.5, 503):.1f} ms, p99 {over.ms(0.99, 503):.1f} ms"
    )
    assert full.statuses().keys() == {200}
    assert over.statuses().keys() == {200, 503}
    assert over.ms(0.99) <= 2 * full.ms(0.99)
