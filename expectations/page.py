"""The quality report: one HTML page that needs no network, readable in light and dark."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

from recsys.quality import Expectation, Verdict

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6675;--page:#f6f7f9;--card:#fff;--line:#dfe3e8;--good:#1d7a46;
--bad:#b3261e;--bar:#d9534f}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#9aa5b4;--page:#14181e;--card:#1d232b;--line:#323a45;
--good:#5cc78a;--bad:#ff8a80;--bar:#c2514c}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:70rem;padding:1.5rem;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;margin:.2rem 0}h2{font-size:1.2rem;margin:0}h3{font-size:1rem;margin:1.2rem 0 .3rem}
p{margin:.3rem 0}.soft{color:var(--soft)}.good{color:var(--good)}.bad{color:var(--bad)}
section{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:1rem 1.2rem;margin:1rem 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{text-align:left;vertical-align:top;padding:.35rem .6rem;border-top:1px solid var(--line)}
th{font-weight:600;color:var(--soft);border-top:0}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.bar{background:var(--bar);height:.6rem;border-radius:.3rem;min-width:2px}
.bars td:last-child{width:40%;vertical-align:middle}
code{font:.85rem/1.4 ui-monospace,monospace;overflow-wrap:anywhere}
summary{cursor:pointer;margin-top:.8rem}
"""


def render(
    verdicts: Mapping[str, tuple[Verdict, list[dict[str, Any]]]], source: Mapping[str, Any], refused: str | None = None
) -> str:
    """Draw the page. It holds no time of day, so that the same data give the same page.

    Args:
        verdicts: table → what was found and some of its rejected rows.
        source: what `source.json` said; its values are shown.
        refused: why the gate accepted nothing; None: it accepted what the page says.

    Returns:
        One HTML document; everything that came with the data is escaped.
    """
    rows = sum(v.rows for v, _ in verdicts.values())
    rejected = sum(v.rows - v.accepted for v, _ in verdicts.values())
    state = f'<p class="good">{rows - rejected:,} of {rows:,} rows accepted, {rejected:,} rejected.</p>'
    if refused:
        state = f'<p class="bad"><b>Refused.</b> {escape(refused)} The lake is as it was before.</p>'
    said = ", ".join(f"{name} {value}" for name, value in source.items()) or "no source.json"
    overview = _table(
        ("table", "rows", "accepted", "rejected", "rules", "broken"),
        (
            (f'<a href="#{name}">{name}</a>', v.rows, v.accepted, v.rows - v.accepted, len(v.failed), len(v.reasons))
            for name, (v, _) in verdicts.items()
        ),
    )
    tables = "".join(_section(name, verdict, samples) for name, (verdict, samples) in verdicts.items())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Data quality</title><style>{_STYLE}</style></head><body><main>"
        f'<h1>Data quality</h1>{state}<p class="soft">{escape(said)}</p>'
        f"<section><h2>Overview</h2>{overview}</section>{tables}</main></body></html>\n"
    )


def _section(name: str, verdict: Verdict, samples: list[dict[str, Any]]) -> str:
    rejected = verdict.rows - verdict.accepted
    tone = "bad" if rejected else "good"
    parts = [
        f'<section id="{name}"><h2>{name}</h2><p class="soft">{escape(verdict.suite.table.about)}</p>'
        f'<p class="{tone}">{verdict.accepted:,} of {verdict.rows:,} rows accepted, {rejected:,} rejected.</p>'
    ]
    if verdict.reasons:
        most = max(verdict.reasons.values())
        bars = (
            (escape(rule), count, f'<div class="bar" style="width:{100 * count / most:.1f}%"></div>')
            for rule, count in verdict.reasons.items()
        )
        parts.append("<h3>Why rows were rejected</h3>" + _table(("rule", "rows", ""), bars, kind="bars"))
        found = (
            (escape(rule), row, f"<code>{escape(got)}</code>")
            for rule in verdict.reasons
            for row, got in verdict.examples[rule]
        )
        parts.append("<h3>What was found</h3>" + _table(("rule", "row of the file", "instead"), found))
        cells = (
            (
                escape(str(row["reason"])),
                f"<code>{escape(_row({k: v for k, v in row.items() if k != 'reason'}))}</code>",
            )
            for row in samples
        )
        parts.append("<h3>Some rejected rows</h3>" + _table(("reason", "row"), cells))
    rules = verdict.suite.expectations
    listed = (
        (escape(e.name), escape(e.why), f"<code>{escape(_call(e))}</code>", verdict.failed[e.name]) for e in rules
    )
    table = _table(("rule", "why", "Great Expectations", "broken by"), listed)
    return "".join(parts) + f"<details><summary>All {len(rules)} rules</summary>{table}</details></section>"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str | int, ...]], kind: str = "") -> str:
    """A table; numbers stand right, text must be escaped already."""
    body = "".join(
        "<tr>" + "".join(f'<td class="n">{c:,}</td>' if isinstance(c, int) else f"<td>{c}</td>" for c in row) + "</tr>"
        for row in rows
    )
    head = "".join(f"<th>{h}</th>" for h in heads)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _call(expectation: Expectation) -> str:
    arguments = ", ".join(f"{name}={value}" for name, value in expectation.kwargs.items() if value is not None)
    return f"{expectation.type}({arguments})"


def _row(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {_short(value)}" for name, value in row.items())


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 6:
        return f"[{', '.join(map(_short, value[:5]))}, … {len(value)} in all]"
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    if isinstance(value, float):
        return f"{value:.7g}"
    said = str(value)
    return said if len(said) <= 120 else f"{said[:119]}…"
