"""What is heard of a request's stages: by whom, for how long, from which threads; and that silence costs nothing."""

import asyncio
import time
from contextlib import contextmanager

import pytest

from recsys.stages import STAGES, Stages, listening, stage


@stage("score")
def work(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@stage("retrieve")
async def wait(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


def test_a_stage_takes_as_long_as_it_does_and_adds_up():
    heard = Stages()
    with listening(heard):
        assert work(0.02) == 0.02
        assert work(0.03) == 0.03
    assert [name for name, _ in heard.spent] == ["score", "score"]
    assert 0.05 <= heard.seconds()["score"] < 0.5


def test_nobody_hears_what_is_not_listened_to():
    heard = Stages()
    work(0)
    with listening(heard), listening(None):
        work(0)
    with listening(heard):
        pass
    work(0)
    assert heard.spent == []


def test_a_stage_within_a_stage_is_part_of_the_outer_one():
    heard = Stages()
    with listening(heard):
        with stage("explain"):
            work(0.01)
        work(0)
    assert [name for name, _ in heard.spent] == ["explain", "score"]


def test_what_waits_and_what_runs_in_threads_is_heard():
    heard = Stages()

    async def request() -> None:
        await wait(0.01)
        await asyncio.gather(*(asyncio.to_thread(work, 0.01) for _ in range(4)))

    with listening(heard):
        asyncio.run(request())
    seconds = heard.seconds()
    assert set(seconds) == {"retrieve", "score"}
    assert seconds["score"] >= 0.04, "each thread counts"


def test_requests_at_the_same_time_hear_their_own():
    async def request(n: int) -> Stages:
        heard = Stages()
        with listening(heard):
            for _ in range(n):
                await wait(0.001)
                await asyncio.to_thread(work, 0.001)
        return heard

    async def all_of_them() -> list[Stages]:
        return await asyncio.gather(*(request(n) for n in range(1, 9)))

    for n, heard in enumerate(asyncio.run(all_of_them()), start=1):
        assert sorted(name for name, _ in heard.spent) == ["retrieve"] * n + ["score"] * n


def test_an_error_ends_a_stage_and_goes_on():
    heard, ends = Stages(), []

    @contextmanager
    def around(name):
        try:
            yield
        except ValueError as error:
            ends.append((name, str(error)))
            raise

    loud = Stages(around)

    @stage("policy")
    def fails() -> None:
        raise ValueError("no")

    for stages in (heard, loud):
        with listening(stages):
            with pytest.raises(ValueError, match="no"):
                fails()
            work(0)
        assert [name for name, _ in stages.spent] == ["policy", "score"]
    assert ends == [("policy", "no")]


def test_a_decorated_function_keeps_its_name_and_its_kind():
    assert (work.__name__, wait.__name__) == ("work", "wait")
    assert asyncio.iscoroutinefunction(wait)
    assert len(STAGES) == 7


def test_it_costs_under_two_microseconds_where_nobody_listens():
    @stage("score")
    def nothing() -> None:
        return None

    best = float("inf")
    for _ in range(20):
        start = time.thread_time_ns()
        for _ in range(1_000):
            nothing()
        best = min(best, (time.thread_time_ns() - start) / 1_000)
    assert best < 2_000, f"{best:.0f} ns"
