"""Slots of many keys against a checksum by the standard library and the cluster specification's own examples."""

from binascii import crc_hqx

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.features.slots import SLOTS, command_slots, key_slot, key_slots
from recsys.features.wire import Block, Commands, command


def by_the_book(key: bytes) -> int:
    """The specification's listing, in Python."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    crc = 0
    for byte in key:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1
        crc &= 0xFFFF
    return crc % SLOTS


def test_the_checksum_is_the_one_of_the_specification():
    assert crc_hqx(b"123456789", 0) == 0x31C3
    assert key_slot(b"123456789") == 0x31C3 % SLOTS
    same = [b"{user1000}.following", b"{user1000}.followers", b"user1000"]
    assert len({key_slot(key) for key in same}) == 1
    whole = [b"foo{}{bar}", b"foo{", b"{}", b"}{"]
    assert [key_slot(key) for key in whole] == [crc_hqx(key, 0) % SLOTS for key in whole]
    assert key_slot(b"foo{{bar}}zap") == key_slot(b"{bar")
    assert key_slot(b"foo{bar}{zap}") == key_slot(b"bar")


@given(st.integers(1, 40).flatmap(lambda n: st.lists(st.binary(min_size=n, max_size=n), min_size=1, max_size=20)))
def test_slots_of_many_keys_are_those_of_each(keys: list[bytes]):
    block = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), -1)
    assert key_slots(block).tolist() == [by_the_book(key) for key in keys]


@given(st.lists(st.text("{}ab", min_size=9, max_size=9).map(str.encode), min_size=1, max_size=30))
def test_braces_anywhere_count_as_the_server_counts_them(keys: list[bytes]):
    block = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), -1)
    assert key_slots(block).tolist() == [by_the_book(key) for key in keys]


def test_each_command_is_found_again_among_many_of_unlike_length():
    rng = np.random.default_rng(3)
    keys = [rng.bytes(int(n)) for n in rng.integers(1, 60, 300)]
    made = [command(b"HSET", key, b"field", rng.bytes(i)) for i, key in enumerate(keys)]
    commands = Commands.join([Commands(), *made])
    begins, ends, slots = command_slots(commands)
    assert slots.tolist() == [key_slot(key) for key in keys]
    cut = [commands.data[begin:end] for begin, end in zip(begins, ends, strict=True)]
    assert cut == [one.data for one in made]


def test_a_block_of_many_commands_and_one_without_a_key():
    row = command(b"GET", b"0123456789")
    many = Commands(row.data * 3, (Block(3, len(row.data), row.blocks[0].key_at, 10),))
    commands = command(b"PING") + many + Commands(b"", (Block(0, 5, 1, 2),))
    begins, ends, slots = command_slots(commands)
    assert commands.replies == len(begins) == 4
    assert slots.tolist() == [0] + 3 * [key_slot(b"0123456789")]
    assert [commands.data[b:e] for b, e in zip(begins, ends, strict=True)][1:] == [row.data] * 3


@pytest.mark.parametrize("key", [b"", b"a", bytes(range(256)) * 3])
def test_a_command_knows_where_its_key_is(key: bytes):
    one = command(b"HGET", key, b"x")
    (block,) = one.blocks
    assert one.data[block.key_at : block.key_at + block.key_size] == key
    assert (block.n, block.size) == (1, len(one.data))
