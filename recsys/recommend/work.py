"""The threads that work requests out: few, whatever the number of requests.

They share one interpreter lock, so one computes while the others wait for the online store (`recsys.turn`): requests
that wait for a thread cost nothing, and all are answered as soon as they would be by more of them.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Final, ParamSpec, TypeVar

import torch

from recsys.breaker import THRESHOLD
from recsys.turn import TURN

P = ParamSpec("P")
R = TypeVar("R")


def _alone() -> None:
    """One thread of PyTorch's, said in each of ours, since that is where it keeps the number.

    A request scores one small batch; a second thread would spin beside it for longer than that takes.
    """
    torch.set_num_threads(1)


# As many as open the breaker by failing: where the online store freezes, the requests that find out wait side by side,
# and the others not at all.
_POOL: Final = ThreadPoolExecutor(THRESHOLD, thread_name_prefix="answer", initializer=_alone)


def _in_turn(work: Callable[[], R]) -> R:
    with TURN.taken():
        return work()


async def in_thread(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run what blocks; as `asyncio.to_thread`, in threads of its own."""
    asked = partial(copy_context().run, _in_turn, partial(work, *args, **kwargs))
    return await asyncio.get_running_loop().run_in_executor(_POOL, asked)
