"""DuckDB's SQL as Spark's: sqlglot, and what it leaves out or gets wrong.

A function that is not known to mean the same in both is refused, since a translation may be wrong without a word:
sqlglot 30 drops the ORDER BY of a list, takes the end of a slice for its length and counts weekdays from elsewhere.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from sqlglot import exp, parse_one
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import ErrorLevel, SqlglotError

from recsys.errors import DataError

_UNTIL: Final = "until_the_next"


class _Ours(DuckDB):  # type: ignore[misc]
    """DuckDB as this project writes it: `len` is of lists, and an index stays as it was written, from 1."""

    INDEX_OFFSET = 0

    class Parser(DuckDB.Parser):  # type: ignore[misc]
        FUNCTIONS = DuckDB.Parser.FUNCTIONS | {
            "LEN": exp.ArraySize.from_arg_list,
            "LENGTH": exp.Length.from_arg_list,
            "EPOCH_US": exp.UnixMicros.from_arg_list,
            "LIST_INTERSECT": exp.ArrayIntersect.from_arg_list,
        }


def to_spark(sql: str, params: Mapping[str, Any] | None = None) -> str:
    """A query of ours as Spark runs it.

    Args:
        sql: one SELECT in DuckDB's dialect.
        params: values of `$name`.

    Raises:
        DataError: it cannot be read, or uses what has no known counterpart.
    """
    try:
        tree = parse_one(sql, read=_Ours)
        for node in reversed(list(tree.walk())):  # what is inside first
            new = _one(node, params or {})
            if new is not node:
                node.replace(new)
        said: str = tree.sql("spark", identify=True, unsupported_level=ErrorLevel.RAISE)
    except SqlglotError as error:
        raise DataError(f"this query has no translation for Spark: {error}") from error
    return said


def _one(node: exp.Expression, params: Mapping[str, Any]) -> exp.Expression:
    if isinstance(node, exp.Placeholder):
        return _value(params[node.name])
    if isinstance(node, exp.Anonymous):
        name = node.name.lower()
        if name not in _BY_NAME:
            raise DataError(f"{name} has no known counterpart in Spark")
        return _BY_NAME[name](*node.expressions)
    for kind, rule in _BY_KIND.items():
        if isinstance(node, kind):
            return rule(node)
    if isinstance(node, exp.Func) and not isinstance(node, _SAME):
        raise DataError(f"{node.sql_name().lower()} has no known counterpart in Spark")
    return node


def _call(name: str, *arguments: exp.Expression) -> exp.Expression:
    return exp.Anonymous(this=name, expressions=list(arguments))


def _cast(value: exp.Expression, to: str) -> exp.Expression:
    return exp.cast(value, to, dialect="duckdb")


def _value(value: Any) -> exp.Expression:
    if isinstance(value, datetime):
        return _cast(exp.Literal.string(value.astimezone(UTC).isoformat()), "TIMESTAMPTZ")
    return exp.convert(value)


def _from(template: str, **parts: exp.Expression) -> exp.Expression:
    """Spark's SQL with expressions in the places of its `:names`."""
    return exp.replace_placeholders(parse_one(template, read="spark"), **parts)


def _slice(
    values: exp.Expression, first: exp.Expression, last: exp.Expression, step: exp.Expression | None = None
) -> exp.Expression:
    """`list_slice` says where to end, Spark's `slice` how many; both count from 1."""
    sliced = _from("SLICE(:x, CAST(:a AS INT), CAST((:b) - (:a) + 1 AS INT))", x=values, a=first, b=last)
    return sliced if step is None else _from("FILTER(:x, (v, i) -> i % :step = 0)", x=sliced, step=step)


def _cosine(a: exp.Expression, b: exp.Expression) -> exp.Expression:
    dot = "AGGREGATE(ZIP_WITH(:{}, :{}, (p, q) -> CAST(p AS DOUBLE) * q), CAST(0 AS DOUBLE), (total, v) -> total + v)"
    ab, aa, bb = (dot.format(*pair) for pair in ("ab", "aa", "bb"))
    return _from(f"({ab} / NULLIF(SQRT({aa} * {bb}), CAST(0 AS DOUBLE)))", a=a, b=b)


def _sorted_list(node: exp.ArrayAgg) -> exp.Expression:
    """`list(x ORDER BY k)`: collected with what it is ordered by in front, sorted, and that taken away again."""
    order = node.this
    if not isinstance(order, exp.Order):
        return node
    down = {bool(key.args.get("desc")) for key in order.expressions}
    if len(down) != 1:
        raise DataError("list(... ORDER BY ...) must have one direction for Spark")
    named = [(f"k{i}", key.this) for i, key in enumerate(order.expressions)] + [("v", order.this)]
    rows = exp.Struct(expressions=[exp.PropertyEQ(this=exp.to_identifier(name), expression=e) for name, e in named])
    collected = _call("SORT_ARRAY", exp.ArrayAgg(this=rows), exp.Boolean(this=not down.pop()))
    row = exp.to_identifier("r")
    return exp.Transform(this=collected, expression=exp.Lambda(this=exp.column("v", "r"), expressions=[row]))


def _groups(node: exp.Group) -> exp.Expression:
    """`GROUP BY ALL` by position: Spark's own does not see that what was rewritten is an aggregate."""
    if not node.args.get("all"):
        return node
    columns = enumerate(node.parent_select.expressions, 1)
    return exp.Group(expressions=[exp.Literal.number(i) for i, one in columns if not one.find(exp.AggFunc)])


def _asof(node: exp.Join) -> exp.Expression:
    """`ASOF LEFT JOIN t a ON a.k = m.k AND a.at <= m.t`: a row holds from its moment until the next one's."""
    if node.method != "ASOF":
        return node
    name, said = node.this.alias, list(node.args["on"].flatten())
    (after,) = [one for one in said if isinstance(one, exp.LTE)]
    keys = [exp.column(one.this.name) for one in said if isinstance(one, exp.EQ)]
    moment = after.this.name
    window = exp.Window(
        this=_call("LEAD", exp.column(moment)),
        partition_by=keys,
        order=exp.Order(expressions=[exp.Ordered(this=exp.column(moment), nulls_first=True)]),
    )
    rows = exp.select(exp.Star(), exp.alias_(window, _UNTIL)).from_(node.this.this.sql("duckdb"), dialect="duckdb")
    until = exp.column(_UNTIL, name)
    holds = exp.or_(exp.Is(this=until, expression=exp.null()), exp.LT(this=after.expression.copy(), expression=until))
    return exp.Join(this=rows.subquery(name), side="LEFT", on=exp.and_(*said, holds))


def _known(node: exp.In) -> exp.Expression:
    """`x IN (SELECT k FROM t)` as a column, which Spark allows in conditions only: how many of `t` there are."""
    query, around = node.args.get("query"), node.find_ancestor(exp.Where, exp.Join, exp.Select)
    if query is None or not isinstance(around, exp.Select):
        return node
    (key,), table = query.this.expressions, query.this.args["from_"].this
    x = exp.column(node.this.name, node.this.table or around.args["from_"].this.alias_or_name)
    count = exp.select(exp.Count(this=exp.Star())).from_(exp.alias_(table.copy(), "known", table=True))
    count = count.where(exp.EQ(this=exp.column(key.name, "known"), expression=x.copy()))
    return _from("CASE WHEN :x IS NOT NULL THEN :n > 0 END", x=x, n=count.subquery())


def _number(node: exp.Literal) -> exp.Expression:
    """In Spark 1.0 is a decimal, and so is what is computed with it."""
    return node if node.is_string or node.is_int else _cast(exp.Literal.string(node.name), "DOUBLE")


_BY_NAME: Final[Mapping[str, Callable[..., exp.Expression]]] = {
    "cardinality": lambda m: _call("CARDINALITY", m),
    "isfinite": lambda x: _from("(ABS(:x) < CAST('Infinity' AS DOUBLE))", x=x),  # NaN is above it
    "list_cosine_similarity": _cosine,
    "list_count": lambda a: _from("SIZE(ARRAY_COMPACT(:a))", a=a),
    "list_position": lambda a, x: _from("NULLIF(ARRAY_POSITION(:a, :x), 0)", a=a, x=x),
    "list_slice": _slice,
    "list_sum": lambda a: _from(  # of nothing it is null
        "CASE WHEN SIZE(ARRAY_COMPACT(:a)) > 0 "
        "THEN AGGREGATE(ARRAY_COMPACT(:a), CAST(0 AS DOUBLE), (total, v) -> total + v) END",
        a=a,
    ),
    "map_entries": lambda m: _call("MAP_ENTRIES", m),
    "map_values": lambda m: _call("MAP_VALUES", m),
}
_BY_KIND: Final[Mapping[type[exp.Expression], Callable[[Any], exp.Expression]]] = {
    exp.ArrayAgg: _sorted_list,
    exp.ArrayDistinct: lambda n: _from("ARRAY_DISTINCT(ARRAY_COMPACT(:a))", a=n.this),
    exp.Bracket: lambda n: _call("TRY_ELEMENT_AT", n.this, *n.expressions),
    exp.DayOfWeekIso: lambda n: exp.paren(exp.Add(this=_call("WEEKDAY", n.this), expression=exp.Literal.number(1))),
    exp.Group: _groups,
    exp.In: _known,
    exp.Join: _asof,
    exp.Literal: _number,
}
# What sqlglot translates, or what both say alike
_SAME: Final = (
    exp.And, exp.Array, exp.ArrayConcat, exp.ArrayFilter, exp.ArrayIntersect, exp.ArrayMax, exp.ArrayMin,
    exp.ArraySize, exp.ArraySort, exp.Case, exp.Cast, exp.Coalesce, exp.Count, exp.DateDiff, exp.Explode, exp.Flatten,
    exp.GenerateSeries, exp.Greatest, exp.Hour, exp.If, exp.Lag, exp.Least, exp.Length, exp.Ln, exp.Map, exp.MapKeys,
    exp.Max, exp.Min, exp.Or, exp.RowNumber, exp.Struct, exp.Sum, exp.TimestampTrunc, exp.Transform, exp.Trim,
    exp.UnixMicros,
)  # fmt: skip
