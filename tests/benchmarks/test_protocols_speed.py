"""The whole table of the protocol *new* on 6,000 users × 9,000 places, method by method, and its intervals."""

import time

import numpy as np
import pytest

from recsys.training.bootstrap import interval, resampled_means
from recsys.training.comparison import place_methods
from recsys.training.measure import measure
from recsys.training.protocol_report import protocol_report
from recsys.training.protocols import friend_graph, places_task

USERS, PLACES, VISITS, FRIENDSHIPS = 6_000, 9_000, 380_000, 11_000


def city() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Visits with popular places, active users and tastes, as many as in a real city of this size."""
    rng = np.random.default_rng(0)
    user = np.minimum((USERS * rng.random(VISITS) ** 1.7).astype(np.int64), USERS - 1)
    place = (PLACES * rng.random(VISITS) ** 3.0).astype(np.int64)
    place = np.where(rng.random(VISITS) < 0.5, (place + user * 37) % PLACES, place)
    return user, place, rng.integers(0, 10**13, VISITS)


def test_the_whole_table_takes_at_most_two_minutes(capsys: pytest.CaptureFixture[str]) -> None:
    user, place, moment = city()
    pairs = np.random.default_rng(1).integers(0, USERS, (FRIENDSHIPS, 2))
    start = time.perf_counter()
    task = places_task(user, place, moment, protocol="new", n_users=USERS, n_places=PLACES)
    methods = place_methods(task, friend_graph(pairs, n_users=USERS))
    fitted = time.perf_counter() - start
    measured, seconds = {}, {}
    for name, method in methods.items():
        before = time.perf_counter()
        measured[name] = measure(task, method)
        seconds[name] = time.perf_counter() - before
    before = time.perf_counter()
    report = protocol_report(measured, model="ease")
    intervals = time.perf_counter() - before
    whole = time.perf_counter() - start
    with capsys.disabled():
        print(f"\nprotocol new, {len(task.users):,} users × {len(task.candidates):,} places, {VISITS:,} visits")
        print(f"  fit all methods    {fitted:6.1f} s")
        for name, one in seconds.items():
            print(f"  {name:18} {one:6.1f} s   ndcg@10 {report.rows[name]['ndcg']:.4f}")
        print(f"  intervals          {intervals:6.1f} s")
        print(f"  all                {whole:6.1f} s")
    assert len(task.users) > 4_000
    assert whole < 120


def test_a_thousand_resamples_take_well_under_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    values = np.random.default_rng(2).random((USERS, 56))
    start = time.perf_counter()
    interval(resampled_means(values))
    seconds = time.perf_counter() - start
    with capsys.disabled():
        print(f"\n1,000 resamples of {USERS:,} users × 56 columns: {seconds:.2f} s")
    assert seconds < 1.0
