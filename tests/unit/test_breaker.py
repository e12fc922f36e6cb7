"""The breaker against its definition, with a clock of the test's own."""

import asyncio
import threading
from contextlib import suppress

import pytest

from recsys.breaker import Breaker
from recsys.errors import DataError, FeatureStoreUnavailable, IndexUnavailable


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("the store", FeatureStoreUnavailable, threshold=3, reset_s=1.0, clock=clock)


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(FeatureStoreUnavailable, match="it is down"), breaker.guard():
            raise FeatureStoreUnavailable("it is down")


def succeed(breaker: Breaker) -> None:
    with breaker.guard():
        pass


def assert_refuses(breaker: Breaker) -> None:
    with pytest.raises(FeatureStoreUnavailable, match="the store is left alone"), breaker.guard():
        pytest.fail("it must not be asked")


def test_it_opens_after_failures_in_a_row_only(breaker: Breaker):
    for _ in range(3):
        fail(breaker, 2)
        succeed(breaker)
    assert breaker.status == "closed"
    fail(breaker, 3)
    assert breaker.status == "open"
    assert_refuses(breaker)


def test_one_probe_after_the_reset_decides(breaker: Breaker, clock: Clock):
    fail(breaker, 3)
    clock.now += 0.999
    assert_refuses(breaker)
    clock.now += 0.001
    assert breaker.status == "half_open"
    with breaker.guard():  # the probe is under way: nobody else asks
        assert_refuses(breaker)
    assert breaker.status == "closed"
    fail(breaker, 2)
    succeed(breaker)  # the count began anew

    fail(breaker, 3)
    clock.now += 1.0
    fail(breaker)
    assert breaker.status == "open"
    assert_refuses(breaker)
    clock.now += 1.0
    succeed(breaker)
    assert breaker.status == "closed"


def test_a_probe_that_nobody_waits_for_any_more_makes_room_for_another(breaker: Breaker, clock: Clock):
    fail(breaker, 3)
    clock.now += 1.0
    with pytest.raises(asyncio.CancelledError), breaker.guard():
        raise asyncio.CancelledError
    assert breaker.status == "half_open"
    succeed(breaker)
    assert breaker.status == "closed"


def test_any_other_error_is_an_answer(breaker: Breaker):
    for _ in range(5):
        with pytest.raises(DataError), breaker.guard():
            raise DataError("a row is damaged")
    assert breaker.status == "closed"
    assert breaker.answered


def test_it_has_answered_once_it_did(breaker: Breaker):
    fail(breaker)
    assert not breaker.answered
    succeed(breaker)
    fail(breaker, 3)
    assert breaker.answered


def test_a_refusal_is_the_error_of_the_part():
    breaker = Breaker("the index", IndexUnavailable, threshold=1)
    with suppress(IndexUnavailable), breaker.guard():
        raise IndexUnavailable("gone")
    with (
        pytest.raises(IndexUnavailable, match=r"the index is left alone for a moment \(got 1 failures"),
        breaker.guard(),
    ):
        pass


def test_of_many_threads_one_asks_a_part_that_is_half_open(breaker: Breaker, clock: Clock):
    fail(breaker, 3)
    clock.now += 1.0
    asked, refused, together, done = [], [], threading.Barrier(16), threading.Event()

    def ask(n: int) -> None:
        together.wait()
        try:
            with breaker.guard():
                asked.append(n)
                assert done.wait(10)
        except FeatureStoreUnavailable:
            refused.append(n)
            if len(refused) == 15:
                done.set()

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(asked), len(refused)) == (1, 15)
    assert breaker.status == "closed"
