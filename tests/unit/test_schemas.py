"""The five tables' contracts, and the rating formula against the seed's scalar listing."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.schemas import TABLES, TIMESTAMP, implicit_rating


def scalar_rating(dwell: float, likes: int, saves: int, shares: int, attended: bool) -> float:
    score = 1.0
    score += min(dwell / 150.0, 2.0)
    score += min(likes * 0.5, 1.5)
    score += min(saves * 1.0, 2.0)
    score += min(shares * 0.5, 1.0)
    if attended:
        score += 2.0
    return min(score, 5.0)


@given(st.floats(0, 1e5), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.booleans())
def test_rating_is_the_seeds_formula(dwell, likes, saves, shares, attended):
    got = implicit_rating([dwell], [likes], [saves], [shares], [attended])
    assert got.dtype == np.float32
    assert got[0] == pytest.approx(scalar_rating(dwell, likes, saves, shares, attended), abs=1e-6)


def test_every_column_states_its_unit_and_references_exist():
    for table in TABLES.values():
        assert set(table.key) <= set(table.columns)
        for name, column in table.columns.items():
            assert column.unit, f"{table.name}.{name}"
            if column.references:
                other, key = column.references.split(".")
                assert TABLES[other].columns[key].type == column.type
        for field in table.arrow:
            assert field.nullable == (field.name in ("latitude", "longitude"))
            if pa.types.is_timestamp(field.type):
                assert field.type == TIMESTAMP
