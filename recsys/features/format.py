"""How Feast lays rows out in Redis, read and written without a protobuf a value.

A row is a hash: its key the serialized entity key and the project, its fields the murmur hash of `view:feature`, its
values serialized `Value` messages. All of that is Feast's own (it is pinned, and `tests/integration/test_online.py`
holds every read and write here equal to Feast's); what is ours is to do it for many rows at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from feast import FeatureView
from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from recsys.aggregates.finish import Floats
from recsys.aggregates.states import Doubles, Ints, States
from recsys.errors import DataError
from recsys.features.wire import Block, Commands

Bytes = npt.NDArray[np.uint8]
STATE: Final = "state"
_DOUBLES: Final = "double_list_val"
_PROBE: Final = 0x0102030405060708  # an id whose bytes are found in a key made by Feast
_VERSION: Final = 3


@dataclass(frozen=True)
class Rows:
    """Where a view's rows are.

    Attributes:
        view: name of the view.
        join_keys: in the order in which ids are given.
        key: a row's key with holes of eight bytes for the ids.
        holes: where they are, one a join key.
        fields: feature → hash field.
    """

    view: str
    join_keys: tuple[str, ...]
    key: bytes
    holes: tuple[int, ...]
    fields: Mapping[str, bytes]

    @classmethod
    def of(cls, project: str, view: FeatureView) -> Self:
        """Learn the layout from Feast's own functions."""
        names = tuple(view.join_keys)
        probes = {name: _PROBE + i for i, name in enumerate(names)}
        entity = EntityKey(join_keys=list(names), entity_values=[Value(int64_val=probes[name]) for name in names])
        key = _redis_key(project, entity, entity_key_serialization_version=_VERSION)
        holes = tuple(key.index(probes[name].to_bytes(8, "little")) for name in names)
        fields = {f.name: _mmh3(f"{view.name}:{f.name}") for f in view.features}
        return cls(view.name, names, key, holes, fields)

    def keys(self, ids: Sequence[Ints]) -> Bytes:
        """(N,) ids of each join key → (N, L) uint8, a key a row."""
        out = np.tile(np.frombuffer(self.key, dtype=np.uint8), (len(ids[0]), 1))
        for hole, column in zip(self.holes, ids, strict=True):
            out[:, hole : hole + 8] = np.ascontiguousarray(column, dtype="<i8").view(np.uint8).reshape(-1, 8)
        return out

    def get(self, ids: Sequence[Ints], feature: str = STATE) -> Commands:
        """One HGET a row."""
        head = b"*3\r\n$4\r\nHGET\r\n$%d\r\n" % len(self.key)
        field = self.fields[feature]
        return _block(head, self.keys(ids), b"\r\n$%d\r\n%b\r\n" % (len(field), field))

    def get_many(self, ids: Sequence[Ints], features: Sequence[str]) -> Commands:
        """One HMGET a row; a reply is a list."""
        head = b"*%d\r\n$5\r\nHMGET\r\n$%d\r\n" % (2 + len(features), len(self.key))
        fields = (self.fields[feature] for feature in features)
        return _block(head, self.keys(ids), b"\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(f), f) for f in fields))

    def put(self, ids: Sequence[Ints], states: States, seconds: Ints, expire_at_ms: Ints | None) -> Commands:
        """One HSET a row and, where keys expire, one PEXPIREAT.

        Args:
            ids: (N,) of each join key.
            states: N, all known.
            seconds: (N,) event timestamps, seconds since the epoch.
            expire_at_ms: (N,) when the server forgets a key, on its own clock; None: never.
        """
        keys, lengths = self.keys(ids), states.lengths()
        stamp_field, field = f"_ts:{self.view}".encode(), self.fields[STATE]
        parts = []
        for length in np.unique(lengths):
            at = np.flatnonzero(lengths == length)
            head = _list_head(_DOUBLES, 8 * int(length))
            first = b"*6\r\n$4\r\nHSET\r\n$%d\r\n" % len(self.key)
            second = b"\r\n$%d\r\n%b\r\n$6\r\n\x08" % (len(stamp_field), stamp_field)
            size = len(head) + 8 * int(length)
            third = b"\r\n$%d\r\n%b\r\n$%d\r\n%b" % (len(field), field, size, head)
            values = states.values[states.offsets[:-1][at][:, None] + np.arange(length)]
            block = values.astype("<f8").view(np.uint8).reshape(len(at), -1)
            parts.append(_block(first, keys[at], second, _varint5(seconds[at]), third, block, b"\r\n"))
        if expire_at_ms is not None:
            digits = np.char.zfill(expire_at_ms.astype("U13"), 13).astype("S13")
            block = np.frombuffer(digits.tobytes(), dtype=np.uint8).reshape(len(keys), 13)
            head = b"*3\r\n$9\r\nPEXPIREAT\r\n$%d\r\n" % len(self.key)
            parts.append(_block(head, keys, b"\r\n$13\r\n", block, b"\r\n"))
        return Commands.join(parts)

    def drop(self, ids: Sequence[Ints]) -> Commands:
        """One UNLINK a row."""
        return _block(b"*2\r\n$6\r\nUNLINK\r\n$%d\r\n" % len(self.key), self.keys(ids), b"\r\n")


def decode(replies: Sequence[bytes | None]) -> States:
    """Serialized lists of doubles, None where the store knows nothing → states."""
    # a list below 16 KB has a head of less than 8 bytes, and 8 a value: the remainder is the head
    lengths = [0 if reply is None else len(reply) >> 3 for reply in replies]
    values = np.frombuffer(b"".join([r[len(r) & 7 :] for r in replies if r is not None]), dtype="<f8")
    return States(values, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64))


def value(reply: bytes | None) -> Any:
    """A Python value of a serialized `Value`; None where there is none."""
    if reply is None:
        return None
    message = Value.FromString(reply)
    kind = message.WhichOneof("val")
    if kind is None or kind == "null_val":
        return None
    content = getattr(message, kind)
    return list(content.val) if hasattr(content, "val") else content


def floats(reply: bytes | None, width: int) -> Floats | None:
    """(width,) float32 of a serialized list of floats, not to be written to; None where there is none.

    Raises:
        DataError: a list of another length.
    """
    if reply is None:
        return None
    head = _list_head("float_list_val", 4 * width)
    if len(reply) == len(head) + 4 * width and reply.startswith(head):
        return np.frombuffer(reply, dtype="<f4", offset=len(head))
    values = value(reply)
    if values is None:
        return None
    if len(values) != width:
        raise DataError(f"a feature list must have {width} values (got {len(values)})")
    return np.asarray(values, dtype=np.float32)


def encode(state: Doubles) -> bytes:
    """A state as a serialized `Value`."""
    return _list_head(_DOUBLES, 8 * len(state)) + np.ascontiguousarray(state, dtype="<f8").tobytes()


def scan(project: str) -> bytes:
    """What all keys of a project match."""
    return b"*" + project.encode()


def matrix(column: pa.ChunkedArray, width: int) -> Floats:
    """A list column as (N, width) float32; rows without a value are zeros.

    Raises:
        DataError: a list of another length.
    """
    array = column.combine_chunks()
    out = np.zeros((len(array), width), dtype=np.float32)
    valid = np.asarray(array.is_valid())
    lengths = array.value_lengths().drop_null()
    if len(lengths) and not (np.asarray(lengths) == width).all():
        raise DataError(f"a feature list must have {width} values (got {sorted(set(lengths.to_pylist()))[:3]})")
    out[valid] = np.asarray(array.drop_null().flatten(), dtype=np.float32).reshape(-1, width)
    return out


@cache
def _list_head(kind: str, size: int) -> bytes:
    """What stands before the numbers of a list: tag and length of its kind of `Value`, tag and size of all."""
    inner = b"\x0a" + _varint(size)
    tag = Value.DESCRIPTOR.fields_by_name[kind].number << 3 | 2
    return _varint(tag) + _varint(len(inner) + size) + inner


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _varint5(numbers: Ints) -> Bytes:
    """(N,) from 2^28 to 2^35 (moments of 1978 to 3058) → (N, 5) their varints."""
    parts = [(numbers >> shift) & 0x7F | (0x80 if shift < 28 else 0) for shift in (0, 7, 14, 21, 28)]
    return np.stack(parts, axis=1).astype(np.uint8)


def _block(head: bytes, keys: Bytes, *rest: bytes | Bytes) -> Commands:
    """Constant bytes and (N, L) blocks, side by side in each of N commands."""
    n = len(keys)
    columns = [
        part if isinstance(part, np.ndarray) else np.broadcast_to(np.frombuffer(part, dtype=np.uint8), (n, len(part)))
        for part in (head, keys, *rest)
    ]
    rows = np.concatenate(columns, axis=1)
    return Commands(rows.tobytes(), (Block(n, rows.shape[1], len(head), keys.shape[1]),))
