"""One process, or several that learn the same vectors; and on which device.

Data-parallel: every process holds the graph and the weights, passes the graph, and computes its share of the rows of
every loss. Gradients are summed over the processes, so each takes the step that one alone would take, to rounding.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import torch
from torch import Tensor, distributed, nn

from recsys.errors import ConfigError
from recsys.models.share import Share

T = TypeVar("T")
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Processes:
    """All that learn together: this one's number among them, how many they are, and how many on this machine."""

    rank: int = 0
    size: int = 1
    here: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that measures, writes and reports."""
        return self.rank == 0

    def share(self, total: int) -> Share:
        """Its part of a batch of `total` rows: consecutive ones, as many as the others have or one more or less."""
        return Share(self.rank * total // self.size, (self.rank + 1) * total // self.size, total)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same bits in each; changes `values`."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Make every gradient the sum over all processes; None stays where no process has one."""
        if self.size == 1:
            return
        all_of_them = list(parameters)
        there = torch.tensor([float(p.grad is not None) for p in all_of_them], device=all_of_them[0].device)
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in all_of_them]
        summed = self.sum(torch.cat([there, *(part.reshape(-1) for part in parts)]))
        found, *flat = torch.split(summed, [len(there), *(p.numel() for p in all_of_them)])
        for p, has, gradient in zip(all_of_them, found.tolist(), flat, strict=True):
            p.grad = gradient.reshape(p.shape) if has else None

    def from_first(self, value: T) -> T:
        """What the first process has."""
        if self.size == 1:
            return value
        held = [value]
        distributed.broadcast_object_list(held, src=0)
        return held[0]


ALONE: Final = Processes()


@contextmanager
def joined(device: Device) -> Iterator[Processes]:
    """Those that `torchrun` started, this one among them; without it this one alone.

    Raises:
        ConfigError: there are more processes than GPUs on this machine.
    """
    if not distributed.is_torchelastic_launched():
        yield ALONE
        return
    if device == "cuda":
        number, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= gpus:
            raise ConfigError(f"every process needs a GPU of its own: at most {gpus} here (got process {number + 1})")
        torch.cuda.set_device(number)
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size(), int(os.environ["LOCAL_WORLD_SIZE"]))
    finally:
        distributed.destroy_process_group()


def device_of(asked: Literal["auto", "cpu", "cuda"]) -> Device:
    """The device to learn on: what was asked for, or a GPU where there is one.

    Raises:
        ConfigError: a GPU was asked for, and PyTorch finds none.
    """
    if asked == "cpu" or torch.cuda.is_available():
        return "cpu" if asked == "cpu" else "cuda"
    if asked == "cuda":
        built = torch.version.cuda
        why = "this PyTorch is built without CUDA" if built is None else f"it is built for CUDA {built}"
        raise ConfigError(f"device cuda was asked for, and PyTorch finds no GPU here ({why}): take cpu or auto")
    return "cpu"
