"""The quality page: what was accepted, what was not and why, against last time; one HTML page, no network needed."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

from recsys.page import document
from recsys.quality import Severity, worst

Judged = Mapping[str, Any]

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6675;--page:#f6f7f9;--card:#fff;--line:#dfe3e8;--good:#1d7a46;
--warn:#8a5a00;--bad:#b3261e;--bar:#d9534f}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#9aa5b4;--page:#14181e;--card:#1d232b;--line:#323a45;
--good:#5cc78a;--warn:#e0b050;--bad:#ff8a80;--bar:#c2514c}}
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
.mark{border:1px solid;border-radius:.6rem;padding:0 .5rem;font-size:.8rem;font-weight:400}
.mark.ok{color:var(--good)}.warn,.mark.warning{color:var(--warn)}.mark.critical{color:var(--bad)}
.bar{background:var(--bar);height:.6rem;border-radius:.3rem;min-width:2px}
.bars td:last-child{width:40%;vertical-align:middle}
code{font:.85rem/1.4 ui-monospace,monospace;overflow-wrap:anywhere}
summary{cursor:pointer;margin-top:.8rem}
"""


def render(tables: Judged, views: Judged | None = None) -> str:
    """Draw the page. It holds no time of day, so that the same data give the same page.

    Args:
        tables: what the gate found: `severity`, `refused` (why nothing was accepted, or None), `batch`, `source`,
            `compared_with` (the batch before, or None) and `suites`: name → `Verdict.figures()` with `samples`,
            `before` (the figures of last time, or None) and `drift` (`Verdict.figures()` with `measures`, or None).
        views: the same of the feature views, once there are some; without drift.

    Returns:
        One HTML document; everything that came with the data is escaped.
    """
    suites = tables["suites"]
    rows, rejected = (sum(s[key] for s in suites.values()) for key in ("rows", "rejected"))
    if tables["refused"]:
        state = f'<p class="bad"><b>Refused.</b> {escape(tables["refused"])} The lake is as it was before.</p>'
    else:
        tone = {"ok": "good", "warning": "warn"}.get(tables["severity"], "bad")
        said = f"{rows - rejected:,} of {rows:,} rows accepted, {rejected:,} rejected."
        state = f'<p class="{tone}">{said} {_mark(tables["severity"])}</p>'
    said = ", ".join(f"{name} {value}" for name, value in tables["source"].items()) or "no source.json"
    last = (
        f"Compared with batch {tables['compared_with'][:12]}."
        if tables["compared_with"]
        else "Nothing to compare with."
    )
    sections = "".join(_section(name, judged) for name, judged in suites.items())
    computed = (
        '<section id="views"><h2>Feature views</h2><p class="soft">Not yet judged: <code>recsys materialize</code> '
        "judges them before anything reads them.</p></section>"
    )
    if views:
        state_ = f'<p class="bad"><b>Refused.</b> {escape(views["refused"])}</p>' if views["refused"] else ""
        computed = (
            f'<section id="views"><h2>Feature views</h2>{state_}{_overview(views["suites"])}</section>'
            + "".join(_section(name, judged) for name, judged in views["suites"].items())
        )
    about = f'{state}<p class="soft">Batch {tables["batch"][:12]}: {escape(said)}. {last}</p>'
    overview = f"<section><h2>Overview</h2>{_overview(suites)}</section>"
    return document("Data quality", about, (overview, sections, computed), _STYLE)


def _overview(suites: Judged) -> str:
    rows = []
    for name, judged in suites.items():
        before = judged.get("before")
        change = (
            before
            and f"{judged['rows'] - before['rows']:+,} rows, {judged['rejected'] - before['rejected']:+,} rejected"
        )
        broken = [rule for rule in judged["rules"] if rule["broken"]]
        most = max(broken, key=lambda rule: rule["broken"], default=None)
        rows.append(
            (
                f'<a href="#{name}">{name}</a>',
                _mark(state(judged)),
                judged["rows"],
                judged["accepted"],
                judged["rejected"],
                escape(f"{most['name']}: {most['broken']:,}") if most else "",
                change,
            )
        )
    return _table(("table", "state", "rows", "accepted", "rejected", "most broken rule", "against last time"), rows)


def _section(name: str, judged: Judged) -> str:
    tone = "bad" if judged["rejected"] else "good"
    limits = (
        f"More than {judged['warn_above']:.0%} rejected warns, more than {judged['stop_above']:.0%} stops the batch."
    )
    parts = [
        f'<section id="{name}"><h2>{name} {_mark(judged["severity"])}</h2><p class="soft">{escape(judged["about"])}</p>'
        f'<p class="{tone}">{judged["accepted"]:,} of {judged["rows"]:,} rows accepted, '
        f'{judged["rejected"]:,} rejected.</p><p class="soft">{limits} '
        f'<a href="docs/{name}.html">Great Expectations\' Data Docs</a></p>'
    ]
    for severity, head in (("critical", "Why rows were rejected"), ("warning", "What is odd, and was kept")):
        broken = [rule for rule in judged["rules"] if rule["broken"] and rule["severity"] == severity]
        parts.append(_broken(head, sorted(broken, key=lambda rule: -rule["broken"])))
    if judged.get("samples"):
        cells = ((escape(str(s["reason"])), f"<code>{escape(s['row'])}</code>") for s in judged["samples"])
        parts.append("<h3>Some rejected rows</h3>" + _table(("reason", "row"), cells))
    if judged.get("drift"):
        parts.append(_drift(judged["drift"]))
    listed = (
        (escape(r["name"]), r["severity"], escape(r["why"]), f"<code>{escape(r['call'])}</code>", r["broken"])
        for r in judged["rules"]
    )
    table = _table(("rule", "severity", "why", "Great Expectations", "broken by"), listed)
    return "".join(parts) + f"<details><summary>All {len(judged['rules'])} rules</summary>{table}</details></section>"


def _broken(head: str, rules: list[Judged]) -> str:
    if not rules:
        return ""
    most = rules[0]["broken"]
    bars = (
        (escape(r["name"]), r["broken"], f'<div class="bar" style="width:{100 * r["broken"] / most:.1f}%"></div>')
        for r in rules
    )
    found = ((escape(r["name"]), row, f"<code>{escape(got)}</code>") for r in rules for row, got in r["examples"])
    return (
        f"<h3>{head}</h3>"
        + _table(("rule", "rows", ""), bars, kind="bars")
        + "<h3>What was found</h3>"
        + _table(("rule", "row of the file", "instead"), found)
    )


def _drift(drift: Judged) -> str:
    names = [measure["column"] for measure in drift["measures"]]
    broken = "".join(
        f'<p class="{"bad" if rule["severity"] == "critical" else "warn"}">Not held: {escape(rule["name"])} '
        f"(got {escape(', '.join(f'{names[row]} {got}' for row, got in rule['examples']))})</p>"
        for rule in drift["rules"]
        if rule["broken"]
    )
    keys = ("rows", "nulls", "distance", "late")
    cells = (
        (escape(m["column"]), *("" if m[key] is None else f"{m[key]:.3f}" for key in keys)) for m in drift["measures"]
    )
    table = _table(("column", "rows, now over before", "rise of empty cells", "distance", "late"), cells)
    head = f"<h3>Against last time {_mark(drift['severity'])}</h3>"
    return f"{head}{broken}<details><summary>Every column</summary>{table}</details>"


def state(judged: Judged) -> Severity:
    """How bad a table is, drift included."""
    return worst(part["severity"] for part in (judged, judged.get("drift")) if part)


def _mark(severity: str) -> str:
    return f'<span class="mark {severity}">{severity}</span>'


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


def shown(row: Mapping[str, Any]) -> str:
    """A row as one line of text; long lists and texts are cut."""
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
