"""The picture of a world: one HTML page that needs no network and no script, readable in light and dark."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import count, pairwise
from math import ceil, cos, radians, sqrt
from typing import Any, Final

from recsys.constants import COARSE_CATEGORIES, POSITIVE_RATING

# The quality report's look. The category colours (Tol's "bright") stay apart for colour-blind eyes, on light and dark.
_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6675;--page:#f6f7f9;--card:#fff;--line:#dfe3e8;--good:#1d7a46;
--bad:#b3261e;--bar:#3b6fb6}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#9aa5b4;--page:#14181e;--card:#1d232b;--line:#323a45;
--good:#5cc78a;--bad:#ff8a80;--bar:#6d9fe0}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:72rem;padding:1.5rem;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;margin:.2rem 0}h2{font-size:1.1rem;margin:0 0 .4rem}p{margin:.3rem 0}
.soft{color:var(--soft);font-size:.9rem}.good{color:var(--good)}.bad{color:var(--bad)}
main{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr))}
header,.wide{grid-column:1/-1}
section{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:1rem 1.2rem;min-width:0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.85rem}.n{text-align:right;font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:top;padding:.3rem 0 .3rem .6rem;border-top:1px solid var(--line)}
th{font-weight:600;color:var(--soft);border-top:0}th:first-child,td:first-child{padding-left:0}
dl,ul{display:flex;flex-wrap:wrap;gap:.6rem 2rem;margin:.8rem 0;padding:0;list-style:none}
dl div{display:flex;flex-direction:column-reverse}dt{color:var(--soft);font-size:.9rem}
dd{margin:0;font-size:1.7rem;line-height:1.2;font-variant-numeric:tabular-nums}
.key{gap:.2rem 1.2rem;font-size:.9rem}.key li{flex-basis:100%}
.key i{display:inline-block;width:.8em;height:.8em;border-radius:50%;margin-right:.4em}
.people{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,11.5rem),1fr));gap:1rem;margin-bottom:0}
.people li{border-left:3px solid var(--bar);padding-left:.8rem;font-size:.9rem}
svg{display:block;width:100%;max-width:30rem;margin:0 auto;font:11px system-ui,sans-serif}
text{fill:var(--soft)}.bar,.low{fill:var(--bar)}.low{opacity:.4}.curve{fill:none;stroke:var(--bar);stroke-width:2}
.grid{stroke:var(--line)}.mark{stroke:var(--ink);stroke-dasharray:4 3}.scale{stroke:var(--ink);stroke-width:2}
.atlas{display:flex;flex-wrap:wrap;gap:0 2rem}.atlas div{flex:0 1 17rem}.atlas svg{flex:1 1 20rem;max-width:42rem}
.atlas svg{font-size:13px}.atlas text{fill:var(--ink);paint-order:stroke;stroke:var(--card);stroke-width:3px}
circle{fill-opacity:.6}
@media (max-width:40rem){.atlas svg{font-size:19px}.key li{flex-basis:auto}table{font-size:.8rem}
th,td{padding-left:.4rem}}
.c0{fill:#cb4;background:#cb4}.c1{fill:#e67;background:#e67}.c2{fill:#a37;background:#a37}.c3{fill:#47a;background:#47a}
.c4{fill:#283;background:#283}.c5{fill:#6ce;background:#6ce}
@media (prefers-color-scheme:dark){.c2{fill:#d6a;background:#d6a}.c3{fill:#69d;background:#69d}
.c4{fill:#4b5;background:#4b5}}
"""
_MAIN: Final = ("users", "places", "interactions", "social_edges", "friend_labels")
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_Ticks = Iterable[tuple[float, str]]  # a place along an axis, and what to write there
_NOTHING: Final = '<p class="soft">Nothing to draw.</p>'
# A chart's view box and the plot within it: on a card one unit is about one pixel, so that text stays legible.
_WIDTH, _HEIGHT = 360, 236
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 344, 22, 196
_MAP: Final = 640
_DOT: Final = 18  # radius of the most visited place on the map


def page(config: Mapping[str, Any], figures: Mapping[str, Any], picture: Mapping[str, Any]) -> str:
    """Draw the page. It holds no time of day, so that the same world gives the same page.

    Args:
        config: preset, seed, cities, start and end of the world; more is not shown.
        figures: counts of the run by name; the main ones head the page.
        picture: what there is to draw. table: rows {figure, value, low, high, unit, ok}; low and high may be None, and
            values of unit "%" are fractions. lorenz: {places (n,), interactions (n,)}, cumulative shares. by_hour:
            (7, 24) counts, from Monday. by_week: (weeks,) counts. cities: rows {city, users, places, interactions}.
            degree: {edges (n,), users (n,)}, the last bin open. ratings: {edges (n + 1,), interactions (n,)}. map:
            {city, places: rows {lat, lon, visits, category}, neighborhoods: rows {name, lat, lon}}. people: sentences.
            Any list may be empty.

    Returns:
        One HTML document; everything that came with the data is escaped.
    """
    said = f"preset {config['preset']}, seed {config['seed']}, cities {config['cities']}, "
    said += f"{config['start'][:10]} to {config['end'][:10]}. Everyone and every place in it is made up."
    main = {name.replace("_", " "): figures.get(name, config.get(name)) for name in _MAIN}
    big = "".join(f"<div><dt>{name}</dt><dd>{n:,}</dd></div>" for name, n in main.items() if n is not None)
    state, table = _figures(picture["table"])
    lorenz, ratings, degree = picture["lorenz"], picture["ratings"], picture["degree"]
    people = "".join(f"<li>{escape(words)}</li>" for words in picture["people"])
    cards = (
        _map(**picture["map"]),
        _card("Popularity", _lorenz(lorenz["places"], lorenz["interactions"])),
        _card("When people go out", _heat(picture["by_hour"])),
        _card("Week by week", _weeks(picture["by_week"])),
        _card("Ratings", _ratings(ratings["edges"], ratings["interactions"])),
        _card("Social edges", _degree(degree["edges"], degree["users"])),
        _card("Cities", _cities(picture["cities"])),
        _card("Some of the people", f'<ul class="people">{people}</ul>' if people else _NOTHING, "wide"),
        _card("Figures", table, "wide"),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Synthetic world</title><style>{_STYLE}</style></head><body><main>"
        f'<header><h1>Synthetic world</h1>{state}<p class="soft">{escape(said)}</p><dl>{big}</dl></header>'
        f"{''.join(cards)}</main></body></html>\n"
    )


def _figures(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """A sentence on how many figures keep to their ranges, and the table of all."""
    ranged = [row for row in rows if row["low"] is not None]
    off = sum(not row["ok"] for row in ranged)
    state = f'<p class="good">All {len(ranged)} figures that have a range are in it.</p>'
    if off:
        state = f'<p class="bad"><b>{off} of {len(ranged)}</b> figures that have a range are out of it.</p>'
    if not ranged:
        state = '<p class="soft">No ranges are set for the figures of this world.</p>'
    lines = []
    for row in rows:
        low, high, wanted, verdict = row["low"], row["high"], "", ""
        if low is not None:
            low = _bound(low, row["unit"])
            wanted = f"at least {low}" if high is None else f"{low} to {_bound(high, row['unit'])}"
            verdict = '<span class="good">in range</span>' if row["ok"] else '<b class="bad">out of range</b>'
        lines.append((escape(row["figure"]), _number(row["value"], row["unit"]), wanted, verdict))
    columns = 4 if ranged else 2
    return state, _table(("figure", "value", "wanted", "verdict")[:columns], [line[:columns] for line in lines])


def _cities(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = ("city", "users", "places", "interactions")
    return _table(heads, [(escape(row["city"]), *(f"{row[head]:,}" for head in heads[1:])) for row in rows])


def _lorenz(places: Sequence[float], interactions: Sequence[float]) -> str:
    """The share of interactions (n,) that the most visited share of places (n,) has."""
    if not places:
        return _NOTHING
    said = []
    for share in (0.01, 0.1, 0.5):
        at, had = min(zip(places, interactions, strict=True), key=lambda point: abs(point[0] - share))
        if abs(at - share) < share / 10:  # a few places have no tenth
            said.append(f"{share:.0%} of the places have {had:.1%}")
    words = f"The most visited {', '.join(said)} of the interactions." if said else ""
    quarters = [(k / 4, f"{k / 4:.0%}") for k in range(5)]
    points = " ".join(f"{_across(x):.1f},{_up(y):.1f}" for x, y in zip(places, interactions, strict=True))
    drawn = _axes(quarters, quarters, "places, most visited first", "interactions")
    drawn += _line("mark", _LEFT, _BOTTOM, _RIGHT, _TOP) + _text(_across(0.6), _up(0.47), "if all were alike")
    drawn += f'<polyline class="curve" points="{points}"/>'
    return _svg(f"Interactions by share of the places. {words}", drawn) + f'<p class="soft">{words}</p>'


def _weeks(counts: Sequence[int]) -> str:
    bars = [(f"week {week}", n) for week, n in enumerate(counts, 1)]
    ticks = [(i + 0.5, f"{i + 1}") for i in range(0, len(bars), ceil(len(bars) / 12) or 1)]
    return _bars("Interactions by week", bars, ticks, "week", "interactions")


def _ratings(edges: Sequence[float], counts: Sequence[int]) -> str:
    bars = [(f"{low:g} to {high:g}", n) for (low, high), n in zip(pairwise(edges), counts, strict=True)]
    ticks = [(float(i), f"{edge:g}") for i, edge in enumerate(edges) if edge == int(edge)]
    liked = bisect_left(edges, POSITIVE_RATING)
    drawn = _bars("Interactions by rating", bars, ticks, "rating", "interactions", liked, f"from {POSITIVE_RATING}")
    share = sum(counts[liked:]) / max(sum(counts), 1)
    return f'{drawn}<p class="soft">Positive, rated {POSITIVE_RATING} or more: {share:.1%} of the interactions.</p>'


def _degree(edges: Sequence[int], users: Sequence[int]) -> str:
    spans = [f"{low}" if high == low + 1 else f"{low}–{high - 1}" for low, high in pairwise(edges)]
    spans += [f"{low}+" for low in edges[-1:]]
    bars = [(f"{span} social edges", n) for span, n in zip(spans, users, strict=True)]
    ticks = [(i + 0.5, span) for i, span in enumerate(spans)]
    return _bars("Users by their social edges", bars, ticks, "social edges of a user", "users")


def _bars(
    title: str, bars: Sequence[tuple[str, int]], ticks: _Ticks, across: str, up: str, mark: int = 0, marked: str = ""
) -> str:
    """Bars side by side.

    Args:
        title: what is drawn, for those who hear it.
        bars: (n,) what a bar is, and its height.
        ticks: where to write what under the bars; bar i stands from i to i + 1.
        across, up: what the axes say.
        mark, marked: bars before this one are paler, and a line with these words parts them from the others.
    """
    if not bars:
        return _NOTHING
    which, most = max(bars, key=lambda bar: bar[1])
    step, width = _step(most), (_RIGHT - _LEFT) / len(bars)
    top = step * max(ceil(most / step), 1)
    heights = [(n / top, f"{n:,}") for n in range(0, top + 1, step)]
    drawn = _axes([(at / len(bars), said) for at, said in ticks], heights, across, up)
    for i, (name, n) in enumerate(bars):
        kind, y = "low" if i < mark else "bar", _up(n / top)
        drawn += _rect(kind, _LEFT + (i + 0.08) * width, y, 0.84 * width, _BOTTOM - y, f"{name}: {n:,}")
    if marked:
        x = _LEFT + mark * width
        drawn += _line("mark", x, _BOTTOM, x, _TOP) + _text(x + 5, _TOP + 9, marked)
    return _svg(f"{title}. Most: {which}, {most:,}.", drawn)


def _heat(counts: Sequence[Sequence[int]]) -> str:
    """A cell for each weekday and hour of counts (7, 24); the stronger, the more."""
    cells = [(n, day, hour) for day, row in enumerate(counts) for hour, n in enumerate(row)]
    if not cells:
        return _NOTHING
    most, busy, late = max(cells)
    left, wide, tall = 34, 13.4, 24
    drawn = "".join(_text(left - 6, 17 + tall * day, name[:3], "end") for day, name in enumerate(_DAYS))
    drawn += "".join(_text(left + wide * hour, 186, f"{hour:02}:00") for hour in range(0, 24, 6))
    for n, day, hour in cells:
        said, strength = f"{_DAYS[day]} {hour:02}:00: {n:,}", n / max(most, 1)
        drawn += _rect("bar", left + wide * hour, 1 + tall * day, wide - 1, tall - 1, said, strength)
    drawn += _text(200, 219, "interactions, hour in UTC: 0", "end") + _text(278, 219, f"{most:,}")
    drawn += "".join(_rect("bar", 206 + 11 * i, 209, 11, 12, f"{most * i / 5:,.0f}", i / 5) for i in range(6))
    return _svg(f"Interactions by weekday and hour, UTC. Most: {_DAYS[busy]} {late:02}:00, {most:,}.", drawn)


def _map(city: str, places: Sequence[Mapping[str, Any]], neighborhoods: Sequence[Mapping[str, Any]]) -> str:
    """Places as dots, area by visits and colour by category, under the names of the neighbourhoods; north is up."""
    shown = [*places, *neighborhoods]
    if not shown:
        return _card(city, _NOTHING, "wide")
    west, east = min(p["lon"] for p in shown), max(p["lon"] for p in shown)
    south, north = min(p["lat"] for p in shown), max(p["lat"] for p in shown)
    lat_km = 111.32  # of a degree; one of longitude is shorter
    lon_km = lat_km * cos(radians((south + north) / 2))
    km = max((east - west) * lon_km, (north - south) * lat_km, 1.0)  # one place alone has no extent
    unit, edge, most = (_MAP - 4 * _DOT) / km, 2 * _DOT, max((p["visits"] for p in places), default=0)

    def at(p: Mapping[str, Any]) -> tuple[float, float]:
        return _MAP / 2 + (p["lon"] - (west + east) / 2) * lon_km * unit, edge + (north - p["lat"]) * lat_km * unit

    drawn = ""
    for p in sorted(places, key=lambda p: -int(p["visits"])):  # small ones on top
        (x, y), r = at(p), max(_DOT * sqrt(p["visits"] / max(most, 1)), 1.2)
        drawn += f'<circle class="c{p["category"]:d}" cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>'
    taken: list[tuple[float, float, int]] = []
    for p in sorted(neighborhoods, key=lambda p: -float(p["lat"])):
        (x, y), size = at(p), 4 * len(p["name"])  # half of the width
        x = min(max(x, size), _MAP - size)
        while any(abs(x - x2) < size + size2 and abs(y - y2) < 17 for x2, y2, size2 in taken):
            y += 4  # names do not cover each other
        taken.append((x, y, size))
        drawn += _text(x, y, p["name"], "middle")
    scale, foot = _step(km), edge + (north - south) * lat_km * unit + 3 * _DOT
    drawn += _line("scale", edge, foot, edge + scale * unit, foot) + _text(edge, foot - 8, f"{scale} km")
    kinds = [(c, name, sum(p["category"] == c for p in places)) for c, name in enumerate(COARSE_CATEGORIES)]
    key = "".join(f'<li><i class="c{c}"></i>{name} {n:,}</li>' for c, name, n in kinds)
    said = f"Places shown: {len(places):,}. The larger a dot, the more visits, up to {most:,}."
    chart = _svg(f"Map of {city}: {said}", drawn, _MAP, ceil(foot) + 8)
    words = f'<div><p class="soft">{said}</p><ul class="key">{key}</ul></div>'
    return _card(city, f'<div class="atlas">{words}{chart}</div>', "wide")


def _axes(xticks: _Ticks, yticks: _Ticks, across: str, up: str) -> str:
    """Lines and what stands at them; a tick here is at a share of its axis."""
    drawn = _text(0, 10, up) + _text(_RIGHT, _BOTTOM + 34, across, "end")
    for share, said in yticks:
        drawn += _line("grid", _LEFT, _up(share), _RIGHT, _up(share)) + _text(_LEFT - 6, _up(share) + 4, said, "end")
    return drawn + "".join(_text(_across(share), _BOTTOM + 16, said, "middle") for share, said in xticks)


def _across(share: float) -> float:
    return _LEFT + share * (_RIGHT - _LEFT)


def _up(share: float) -> float:
    return _BOTTOM - share * (_BOTTOM - _TOP)


def _step(most: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, … that covers `most` in at most five steps."""
    steps = (lead * int(10**e) for e in count() for lead in (1, 2, 5))
    return next(step for step in steps if 5 * step >= most)


def _svg(said: str, drawn: str, width: int = _WIDTH, height: int = _HEIGHT) -> str:
    box = f'viewBox="0 0 {width} {height}"'
    return f'<svg role="img" aria-label="{escape(said)}" {box}>{drawn}</svg>'


def _text(x: float, y: float, said: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _rect(kind: str, x: float, y: float, width: float, height: float, said: str, strength: float = 1) -> str:
    box = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    faint = 0.07 + 0.93 * strength  # nothing is still a cell
    return f'<rect class="{kind}" {box} fill-opacity="{faint:.2f}"><title>{escape(said)}</title></rect>'


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all but the first column stand right, cells must be escaped already."""
    lines = ""
    for tag, (first, *rest) in [("th", heads), *(("td", row) for row in rows)]:
        cells = "".join(f'<{tag} class="n">{cell}</{tag}>' for cell in rest)
        lines += f"<tr><{tag}>{first}</{tag}>{cells}</tr>"
    return f'<div class="scroll"><table>{lines}</table></div>'


def _number(value: float, unit: str) -> str:
    return f"{value:.1%}" if unit == "%" else f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"


def _bound(value: float, unit: str) -> str:
    """The end of a range, as short as it was given."""
    return f"{100 * value:g}%" if unit == "%" else f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _card(title: str, body: str, kind: str = "narrow") -> str:
    return f'<section class="{kind}"><h2>{escape(title)}</h2>{body}</section>'
