"""The threads that requests are worked out in."""

import asyncio

import torch

from recsys.recommend.work import in_thread


def test_a_request_scores_with_one_thread_of_pytorch_whatever_others_use():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:

        async def threads() -> list[int]:
            return await asyncio.gather(*(in_thread(torch.get_num_threads) for _ in range(6)))

        assert set(asyncio.run(threads())) == {1}
    finally:
        torch.set_num_threads(before)
