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
    begins, ends, slots = (np.zeros(commands.replies, dtype=np.int64) for _ in range(3))
    data, row, at = np.frombuffer(commands.data, dtype=np.uint8), 0, 0
    for n, size, key_at, key_size in commands.blocks:
        rows, key = slice(row, row + n), slice(key_at, key_at + key_size)
        if n == 1:
            slots[row] = key_slot(commands.data[at : at + size][key])
        else:
            slots[rows] = key_slots(data[at : at + n * size].reshape(n, size)[:, key])
        begins[rows] = at + size * np.arange(n)
        ends[rows] = begins[rows] + size
        row, at = row + n, at + n * size
    return begins, ends, slots


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
