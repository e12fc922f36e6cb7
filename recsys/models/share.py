"""A process's part of a batch: which rows it computes, such that the parts of all add up to the whole."""

from dataclasses import dataclass

from torch import Tensor

from recsys.models.dropout import dropout_mask


@dataclass(frozen=True)
class Share:
    """The rows [start, stop) of a batch of `total`."""

    start: int
    stop: int
    total: int

    @property
    def weight(self) -> float:
        """What its mean counts in the batch's."""
        return (self.stop - self.start) / max(self.total, 1)

    def of(self, batch: Tensor) -> Tensor:
        """Its rows of (total, ...)."""
        return batch[self.start : self.stop]

    def among(self, numbers: Tensor) -> Tensor:
        """Those of some row numbers that are its own."""
        return numbers[(numbers >= self.start) & (numbers < self.stop)]

    def dropout(self, rows: Tensor, p: float) -> Tensor:
        """Dropout of its rows, drawn for the whole batch: the draws are the same however many processes share it."""
        return rows * self.of(dropout_mask((self.total, *rows.shape[1:]), p, rows))
