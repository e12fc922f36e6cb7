"""How a protocol's figures look on the screen."""

from rich.table import Table

from recsys.training.protocol_report import ProtocolReport

_HEADS = {
    "recall": "recall@10",
    "recall_20": "recall@20",
    "ndcg": "ndcg@10",
    "mrr": "mrr",
    "auc": "auc",
    "coverage": "coverage",
    "popularity_percentile": "pop. pct",
    "novelty": "novelty",
}
_BRACKETED = ("recall", "recall_20", "ndcg", "mrr", "auc")
_COMPARED = ("recall", "ndcg", "auc")  # side by side with an interval and a ratio each: no more has room


def methods_table(title: str, report: ProtocolReport) -> Table:
    """A row a method: means, and under them their 95 % intervals over users."""
    found = [name for name in _HEADS if name in next(iter(report.rows.values()))]
    table = Table(title=title, title_justify="left", caption="below: 95 % over users", caption_justify="left")
    table.add_column("method", no_wrap=True)
    for name in found:
        table.add_column(_HEADS[name], justify="right")
    for method, row in report.rows.items():
        table.add_row(method, *(_cell(row[name], report.intervals[method].get(name), name) for name in found))
    return table


def differences_table(report: ProtocolReport) -> Table | None:
    """A row a baseline: the model less it, on the same users; None where no model was measured."""
    if not report.model_minus:
        return None
    table = Table("model −", title="the model less each other method: mean, 95 %, ratio", title_justify="left")
    found = [m for m in _COMPARED if m in next(iter(report.model_minus.values()))]
    for name in found:
        table.add_column(_HEADS[name], justify="right")
    for method, row in report.model_minus.items():
        cells = []
        for one in (row[m] for m in found):
            ratio = "" if one["ratio"] is None else f"  × {one['ratio']:.2f}"
            cells.append(f"{one['mean']:+.4f}  [dim]{one['low']:+.4f} … {one['high']:+.4f}[/]{ratio}")
        table.add_row(method, *cells)
    return table


def _cell(mean: float, ends: tuple[float, float] | None, metric: str) -> str:
    if ends is None or metric not in _BRACKETED:  # the report has them all; a screen has room for these
        return _number(mean, 4)
    return f"{_number(mean, 4)}\n[dim]{_number(ends[0], 3)}–{_number(ends[1], 3)}[/]"


def _number(value: float, digits: int) -> str:
    """What matters in little room: .0123, 8.12."""
    return f"{value:.2f}" if value >= 1 else f"{value:.{digits}f}".removeprefix("0")
