"""One thread computes at a time, but for those that wait for something else."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from recsys.turn import Turn

WAIT_S = 10.0


def test_nobody_computes_beside_another_and_everybody_waits_side_by_side():
    turn, all_wait = Turn(), threading.Barrier(3)
    computing, most, steps = [], [], 200

    def work(name: int) -> None:
        for _ in range(steps):
            with turn.taken():
                computing.append(name)
                most.append(len(computing))
                computing.remove(name)
                with turn.given_up(), turn.given_up():
                    all_wait.wait(WAIT_S)  # broken where one of them cannot come here for another's turn
                computing.append(name)
                most.append(len(computing))
                computing.remove(name)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    assert len(most) == 2 * 3 * steps
    assert set(most) == {1}


def test_a_turn_ends_with_an_error_inside_it_and_while_it_is_given_up():
    turn = Turn()
    for _ in range(2):
        with pytest.raises(KeyError), turn.taken():
            raise KeyError
        with pytest.raises(KeyError), turn.taken(), turn.given_up():
            raise KeyError


def test_who_has_no_turn_gives_none_up():
    turn = Turn()
    other = threading.Thread(target=lambda: turn.given_up().__enter__())
    with turn.taken():
        other.start()
        other.join(WAIT_S)
        assert not other.is_alive()
        late = threading.Event()

        def take() -> None:
            with turn.taken():
                late.set()

        third = threading.Thread(target=take)
        third.start()
        assert not late.wait(0.05)
    third.join(WAIT_S)
    assert late.is_set()
