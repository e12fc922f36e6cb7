"""Which of a Redis Cluster's 16,384 slots a key is in, for many keys at once.

CRC16/XMODEM is linear: of keys of one length, each byte at each place has its own share, and shares are combined by
exclusive or. https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
"""

from binascii import crc_hqx
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from recsys.aggregates.states import Ints
from recsys.features.wire import Commands

SLOTS: Final = 16_384
_OPEN, _CLOSE = ord("{"), ord("}")


def key_slots(keys: npt.NDArray[np.uint8]) -> Ints:
    """(N, L) keys of one length, a row each → (N,) their slots.

    Where a key has something between its first "{" and the next "}", that alone counts (its hash tag): also in the
    bytes of an id.
    """
    length = keys.shape[1]
    shares = np.take(_shares(length), keys + 256 * np.arange(length))
    slots: Ints = np.bitwise_xor.reduce(shares, axis=1).astype(np.int64) % SLOTS
    for row in np.flatnonzero((keys == _OPEN).any(axis=1)).tolist():
        slots[row] = key_slot(keys[row].tobytes())
    return slots


def key_slot(key: bytes) -> int:
    """The slot of one key."""
    first = key.find(_OPEN)
    last = key.find(_CLOSE, first + 1) if first >= 0 else -1
    return crc_hqx(key[first + 1 : last] if last > first + 1 else key, 0) % SLOTS


def command_slots(commands: Commands) -> tuple[Ints, Ints, Ints]:
    """Of N commands: where in the bytes each begins, where it ends, and the slot of its key; 0 where it has none."""
    blocks = np.array(commands.blocks, dtype=np.int64)
    n, size, key_at, key_size = blocks.T
    first = np.cumsum(n * size) - n * size
    sizes = np.repeat(size, n)
    begins = np.repeat(first, n) + (np.arange(len(sizes)) - np.repeat(np.cumsum(n) - n, n)) * sizes
    keys_at, lengths = begins + np.repeat(key_at, n), np.repeat(key_size, n)
    data = np.frombuffer(commands.data, dtype=np.uint8)
    slots = np.zeros(len(sizes), dtype=np.int64)
    for length in np.unique(lengths[lengths > 0]).tolist():
        at = np.flatnonzero(lengths == length)
        slots[at] = key_slots(data[keys_at[at][:, None] + np.arange(length)])
    return begins, begins + sizes, slots


@lru_cache(maxsize=256)
def _shares(length: int) -> npt.NDArray[np.uint16]:
    """(length * 256,) what each byte at each place adds to the checksum of a key of that length."""
    table = np.array([crc_hqx(bytes([byte]), 0) for byte in range(256)], dtype=np.uint16)
    out = np.empty((length, 256), dtype=np.uint16)
    share = table
    for place in reversed(range(length)):
        out[place] = share
        share = (share << 8) ^ table[share >> 8]  # one more byte of zeros behind it
    return out.ravel()
