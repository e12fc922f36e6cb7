"""How a landed table differs from the one that was accepted last: as measures by column, and rules for those.

Two batches of one source should look alike; where they do not, somebody upstream changed something, or lost it.
"""

from typing import Final

import pyarrow as pa

from expectations.rules import derived, warning
from recsys.quality import Suite
from recsys.schemas import Column, Table

_SAMPLE: Final = 100_000  # rows of a column that are compared, every so-manieth; of a list or map a fifth of that
_CHANCE: Final = 1.63  # two samples of one distribution differ by less, times sqrt(1/n + 1/m), 99 times of 100 (KS)

_WHY_ROWS = "Rows that go missing between two batches are lost, and what is learned from the rest is skewed."
_WHY_NULLS = "A column that empties is a producer that changed."
_WHY_DISTANCE = "What was learned from the last batch may not hold for this one."
_WHY_LATE = "Features as of a day were already made without them: only making features anew takes them in."


def suite(table: Table) -> Suite:
    """Rules for the measures of one table: a broken critical one stops the batch."""
    rules = (
        derived("there are at least half as many rows", "rows", '"rows"', why=_WHY_ROWS, min_value=0.5),
        warning(derived("row count is within a fifth", "rows", '"rows"', why=_WHY_ROWS, min_value=0.8, max_value=1.25)),
        derived("share of empty cells rose by at most 0.2", "nulls", '"nulls"', why=_WHY_NULLS, max_value=0.2),
        warning(
            derived("share of empty cells rose by at most 0.01", "nulls", '"nulls"', why=_WHY_NULLS, max_value=0.01)
        ),
        derived("distribution moved by at most 0.4", "distance", '"distance"', why=_WHY_DISTANCE, max_value=0.4),
        warning(
            derived("distribution moved by at most 0.1", "distance", '"distance"', why=_WHY_DISTANCE, max_value=0.1)
        ),
        warning(derived("at most a hundredth came late", "late", '"late"', why=_WHY_LATE, max_value=0.01)),
    )
    about = f"How {table.name} differ from the batch that was accepted last."
    measures = Table(f"{table.name} drift", {}, (), about)
    return Suite(measures, rules, warn_above=0.0, stop_above=0.0)


def measures_sql(table: Table, *, same_taxonomy: bool = True) -> str:
    """The query over `landing` and `before` that gives `row`, `column` and its measures, null where it has none.

    Where the taxonomy is not the one of before, what is indexed by its names is not compared.

    - `rows`: rows now over rows before. `nulls`: by how much the share of empty cells rose.
    - `distance`: beyond what chance makes of so many rows; of scalars the largest difference of the two cumulative
      distributions (Kolmogorov and Smirnov), of text that of its lengths, of lists and maps half the sum of the
      differences of each position's or element's share (total variation).
    - `late`: of the rows, those dated before the last row of before and not in it.
    """
    counts = "(SELECT count(*) AS n FROM landing) a, (SELECT count(*) AS n FROM before) b"
    rows = "a.n / nullif(b.n, 0)"
    parts = [f"SELECT '(rows)' AS \"column\", {rows} AS rows, NULL::DOUBLE AS nulls, {_late(table)}::DOUBLE AS late, "
             f"NULL::DOUBLE AS distance FROM {counts}"]  # fmt: skip
    for name, column in table.columns.items():
        nulls = f"(SELECT avg(({_empty(name, column)})::INT) FROM {{}})"
        rose = f"{nulls.format('landing')} - {nulls.format('before')}"
        distance = _distance(name, column)
        indexed = column.position or column.length
        moves = name in table.key or column.references or pa.types.is_timestamp(column.type)
        if moves or (indexed and not same_taxonomy):  # ids and moments move on by their nature
            distance = "NULL"
        parts.append(f"SELECT '{name}', NULL, {rose}, NULL, {distance} FROM {counts}")
    return f"SELECT (row_number() OVER () - 1)::BIGINT AS row, * FROM ({' UNION ALL '.join(parts)})"


def _late(table: Table) -> str:
    if "timestamp" not in table.key:
        return "NULL"
    same = " AND ".join(f'o."{c}" = landing."{c}"' for c in table.key)
    return (
        '(SELECT count(*) FROM landing WHERE "timestamp" < (SELECT max("timestamp") FROM before) '
        f"AND NOT EXISTS (SELECT 1 FROM before o WHERE {same})) / nullif(a.n, 0)"
    )


def _empty(name: str, column: Column) -> str:
    # not isnan: over parquet, DuckDB 2 answers it from statistics, and those leave NaN out
    return f'"{name}" IS NULL' + (f' OR NOT isfinite("{name}")' if pa.types.is_floating(column.type) else "")


def _distance(name: str, column: Column) -> str:
    nested = pa.types.is_list(column.type) or pa.types.is_map(column.type)
    found = _shares(name, column) if nested else _cumulative(name, column)
    size = _SAMPLE // 5 if nested else _SAMPLE
    chance = f"{_CHANCE} * sqrt(1 / least(a.n, {size}) + 1 / least(b.n, {size}))"
    return f"greatest(0, ({found}) - {chance})"


def _sampled(of: str, size: int) -> str:
    return f"FROM {of} WHERE file_row_number % (SELECT count(*) // {size} + 1 FROM {of}) = 0"


def _cumulative(name: str, column: Column) -> str:
    value = f'length("{name}")' if pa.types.is_string(column.type) else f'"{name}"'
    both = " UNION ALL ".join(
        f"SELECT v, {sign}1.0 / sum(1) OVER () AS w FROM (SELECT {value}::DOUBLE AS v {_sampled(of, _SAMPLE)}) "
        "WHERE isfinite(v)"
        for of, sign in (("landing", ""), ("before", "-"))
    )
    return (
        f"SELECT coalesce(max(abs(d)), 0) FROM (SELECT sum(w) OVER (ORDER BY v) AS d FROM "
        f"(SELECT v, sum(w) AS w FROM ({both}) GROUP BY v))"
    )


def _shares(name: str, column: Column) -> str:
    if pa.types.is_map(column.type):
        element, weight = f'unnest(map_keys("{name}"))', f'unnest(map_values("{name}"))'
    elif pa.types.is_floating(column.type.value_type):
        element, weight = f'unnest(range(len("{name}")))', f'unnest("{name}")'
    else:
        element, weight = f'unnest("{name}")', "1.0"
    both = " UNION ALL ".join(
        f"SELECT e, {sign}w / sum(w) OVER () AS w FROM "
        f"(SELECT e, sum(w) AS w FROM (SELECT {element} AS e, ({weight})::DOUBLE AS w {_sampled(of, _SAMPLE // 5)}) "
        "WHERE isfinite(w) GROUP BY e)"
        for of, sign in (("landing", ""), ("before", "-"))
    )
    return f"SELECT coalesce(sum(abs(w)) / 2, 0) FROM (SELECT e, sum(w) AS w FROM ({both}) GROUP BY e)"
