"""Counter-based random streams: what an entity draws depends on the seed and on nothing else.

Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is keyed by (seed, stream, entity), so
blocks can be drawn in any order, by any number of workers, in chunks of any size, with the same result.
"""

from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

# Entities draw in blocks of this many. It is part of the world's definition: another value is another world.
BLOCK: Final = 256


class Stream(IntEnum):
    """What a stream is for. Numbers are part of the world's definition: add at the end, never renumber."""

    CITIES = 1
    PLACES = 2
    PLACE_NAMES = 3
    USERS = 4
    USER_NAMES = 5
    TRIPS = 6
    GROUPS = 7
    OUTINGS = 8
    INTERACTIONS = 9
    NEGATIVES = 10
    LABELS = 11
    MEANS = 12
    DRIFT = 13
    LIKINGS = 14
    COORDINATES = 15


def stream(seed: int, kind: Stream, entity: int = 0) -> np.random.Generator:
    """The generator of one entity, or one block of entities.

    Args:
        seed: the world's seed, 0 to 2**64 - 1.
        kind: what is drawn.
        entity: number of the entity or block, 0 to 2**56 - 1.

    Returns:
        A generator whose draws are independent of every other (seed, kind, entity).
    """
    key = np.array([seed, (int(kind) << 56) | entity], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


class Streams:
    """The generators of many entities of one kind, one after another, without the cost of making each: a tenth.

    Philox has no state but its key and counter, so that one generator is set to the next entity's.
    """

    def __init__(self, seed: int, kind: Stream) -> None:
        self._kind = int(kind) << 56
        self._bits = np.random.Philox(key=np.array([seed, self._kind], dtype=np.uint64))
        self._rng = np.random.Generator(self._bits)
        self._fresh: Any = self._bits.state

    def of(self, entity: int) -> np.random.Generator:
        """As `stream` gives it; valid until the next call."""
        self._fresh["state"]["key"][1] = self._kind | entity
        self._bits.state = self._fresh
        return self._rng


def blocks(count: int, size: int = BLOCK) -> list[tuple[int, int]]:
    """Half-open ranges [start, stop) of at most `size` that cover `count` entities in order."""
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def choose(rng: np.random.Generator, weights: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.int64]:
    """Draw positions of `weights` (K,), with replacement, by its cumulative sum.

    Returns:
        (size,) int64 in [0, K).
    """
    edges = np.cumsum(weights)
    drawn: npt.NDArray[np.int64] = np.searchsorted(edges, rng.random(size) * edges[-1], side="right")
    return np.asarray(np.minimum(drawn, len(weights) - 1))


def choose_rows(rng: np.random.Generator, weights: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Draw one position per row of `weights` (N, K).

    Returns:
        (N,) int64 in [0, K); a position of weight 0 is never drawn.
    """
    edges = np.cumsum(weights, axis=1, dtype=np.float64)
    target = rng.random(len(weights)) * edges[:, -1]
    drawn: npt.NDArray[np.int64] = (edges <= target[:, None]).sum(axis=1)
    return np.asarray(np.minimum(drawn, weights.shape[1] - 1))


def subset(
    rng: np.random.Generator, allowed: npt.NDArray[np.bool_], size: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Draw `size[i]` distinct positions among the allowed ones of each row (all of them where there are fewer).

    Args:
        allowed: (N, K) bool.
        size: (N,) wanted.

    Returns:
        (N, K) bool, true where drawn.
    """
    keys = np.where(allowed, rng.random(allowed.shape), 2.0)
    rank = np.empty(allowed.shape, dtype=np.int64)
    np.put_along_axis(rank, np.argsort(keys, axis=1), np.arange(allowed.shape[1])[None, :], axis=1)
    return (rank < size[:, None]) & allowed
