"""DuckDB's SQL as Spark's: what sqlglot leaves out or gets wrong, and that nothing unknown passes."""

from datetime import UTC, datetime

import pytest

from recsys.errors import DataError
from recsys.spark import to_spark


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("list(x ORDER BY a DESC, b DESC)", "TRANSFORM(SORT_ARRAY(COLLECT_LIST(STRUCT(`a` AS `k0`, `b` AS `k1`, "
         "`x` AS `v`)), FALSE), `r` -> `r`.`v`)"),
        ("list_slice(x, 3, 7)", "SLICE(`x`, CAST(3 AS INT), CAST((7) - (3) + 1 AS INT))"),
        ("isodow(t)", "(WEEKDAY(`t`) + 1)"),
        ("x[1]", "TRY_ELEMENT_AT(`x`, 1)"),
        ("x[i + 1]", "TRY_ELEMENT_AT(`x`, `i` + 1)"),
        ("len(x)", "SIZE(`x`)"),
        ("length(x)", "LENGTH(`x`)"),
        ("1.5 * x", "CAST('1.5' AS DOUBLE) * `x`"),
        ("list_distinct(x)", "ARRAY_DISTINCT(ARRAY_COMPACT(`x`))"),
        ("isfinite(x)", "(ABS(`x`) < CAST('Infinity' AS DOUBLE))"),
        ("(x + 1)::TIMESTAMP::TIMESTAMPTZ", "CAST(CAST((`x` + 1) AS TIMESTAMP_NTZ) AS TIMESTAMP)"),
    ],
)  # fmt: skip
def test_what_sqlglot_leaves_out_or_gets_wrong(ours: str, theirs: str):
    assert to_spark(f"SELECT {ours} FROM t") == f"SELECT {theirs} FROM `t`"


def test_parameters_become_moments_in_utc():
    moment = datetime(2024, 3, 1, tzinfo=UTC)
    assert to_spark("SELECT $end AS t", {"end": moment}) == (
        "SELECT CAST('2024-03-01T00:00:00+00:00' AS TIMESTAMP) AS `t`"
    )


def test_membership_as_a_column_asks_the_table_and_not_itself():
    said = to_spark('SELECT "user_id" IN (SELECT user_id FROM users) AS known FROM landing')
    assert "`known`.`user_id` = `landing`.`user_id`" in said
    assert said.startswith("SELECT CASE WHEN NOT `landing`.`user_id` IS NULL THEN (SELECT COUNT(*)")
    assert "IN (SELECT" in to_spark("SELECT a FROM landing WHERE a IN (SELECT b FROM t)")


@pytest.mark.parametrize("expression", ["list_zip(a, b)", "arg_min(a, b)", "regexp_matches(a, 'b')", "hash(a)"])
def test_a_function_without_a_known_counterpart_is_refused(expression: str):
    with pytest.raises(DataError, match="has no known counterpart in Spark"):
        to_spark(f"SELECT {expression} FROM t")


def test_an_order_in_two_directions_and_what_is_no_sql_are_refused():
    with pytest.raises(DataError, match="one direction"):
        to_spark("SELECT list(x ORDER BY a DESC, b) FROM t")
    with pytest.raises(DataError, match="no translation for Spark"):
        to_spark("SELECT FROM WHERE")
