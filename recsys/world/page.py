"""The picture of a world: one HTML page that needs no network and no script, readable in light and dark."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from math import ceil, cos, radians, sqrt
from typing import Any, Final

from recsys.constants import COARSE_CATEGORIES, POSITIVE_RATING
from recsys.page import (
    BOTTOM,
    LEFT,
    NOTHING,
    RIGHT,
    TOP,
    axes,
    bar_chart,
    card,
    document,
    svg,
    svg_line,
    svg_rect,
    svg_text,
    table,
    tick_step,
    x_at,
    y_at,
)

_MAIN: Final = ("users", "places", "interactions", "social_edges", "friend_labels")
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
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
    state, figures_table = _figures(picture["table"])
    lorenz, ratings, degree = picture["lorenz"], picture["ratings"], picture["degree"]
    people = "".join(f"<li>{escape(words)}</li>" for words in picture["people"])
    cards = (
        _map(**picture["map"]),
        card("Popularity", _lorenz(lorenz["places"], lorenz["interactions"])),
        card("When people go out", _heat(picture["by_hour"])),
        card("Week by week", _weeks(picture["by_week"])),
        card("Ratings", _ratings(ratings["edges"], ratings["interactions"])),
        card("Social edges", _degree(degree["edges"], degree["users"])),
        card("Cities", _cities(picture["cities"])),
        card("Some of the people", f'<ul class="people">{people}</ul>' if people else NOTHING, "wide"),
        card("Figures", figures_table, "wide"),
    )
    return document("Synthetic world", f'{state}<p class="soft">{escape(said)}</p><dl>{big}</dl>', cards)


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
    return state, table(("figure", "value", "wanted", "verdict")[:columns], [line[:columns] for line in lines])


def _cities(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = ("city", "users", "places", "interactions")
    return table(heads, [(escape(row["city"]), *(f"{row[head]:,}" for head in heads[1:])) for row in rows])


def _lorenz(places: Sequence[float], interactions: Sequence[float]) -> str:
    """The share of interactions (n,) that the most visited share of places (n,) has."""
    if not places:
        return NOTHING
    said = []
    for share in (0.01, 0.1, 0.5):
        at, had = min(zip(places, interactions, strict=True), key=lambda point: abs(point[0] - share))
        if abs(at - share) < share / 10:  # a few places have no tenth
            said.append(f"{share:.0%} of the places have {had:.1%}")
    words = f"The most visited {', '.join(said)} of the interactions." if said else ""
    quarters = [(k / 4, f"{k / 4:.0%}") for k in range(5)]
    points = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in zip(places, interactions, strict=True))
    drawn = axes(quarters, quarters, "places, most visited first", "interactions")
    drawn += svg_line("mark", LEFT, BOTTOM, RIGHT, TOP) + svg_text(x_at(0.6), y_at(0.47), "if all were alike")
    drawn += f'<polyline class="curve" points="{points}"/>'
    return svg(f"Interactions by share of the places. {words}", drawn) + f'<p class="soft">{words}</p>'


def _weeks(counts: Sequence[int]) -> str:
    bars = [(f"week {week}", n) for week, n in enumerate(counts, 1)]
    ticks = [(i + 0.5, f"{i + 1}") for i in range(0, len(bars), ceil(len(bars) / 12) or 1)]
    return bar_chart("Interactions by week", bars, ticks, "week", "interactions")


def _ratings(edges: Sequence[float], counts: Sequence[int]) -> str:
    bars = [(f"{low:g} to {high:g}", n) for (low, high), n in zip(pairwise(edges), counts, strict=True)]
    ticks = [(float(i), f"{edge:g}") for i, edge in enumerate(edges) if edge == int(edge)]
    liked = bisect_left(edges, POSITIVE_RATING)
    drawn = bar_chart("Interactions by rating", bars, ticks, "rating", "interactions", liked, f"from {POSITIVE_RATING}")
    share = sum(counts[liked:]) / max(sum(counts), 1)
    return f'{drawn}<p class="soft">Positive, rated {POSITIVE_RATING} or more: {share:.1%} of the interactions.</p>'


def _degree(edges: Sequence[int], users: Sequence[int]) -> str:
    spans = [f"{low}" if high == low + 1 else f"{low}–{high - 1}" for low, high in pairwise(edges)]
    spans += [f"{low}+" for low in edges[-1:]]
    bars = [(f"{span} social edges", n) for span, n in zip(spans, users, strict=True)]
    ticks = [(i + 0.5, span) for i, span in enumerate(spans)]
    return bar_chart("Users by their social edges", bars, ticks, "social edges of a user", "users")


def _heat(counts: Sequence[Sequence[int]]) -> str:
    """A cell for each weekday and hour of counts (7, 24); the stronger, the more."""
    cells = [(n, day, hour) for day, row in enumerate(counts) for hour, n in enumerate(row)]
    if not cells:
        return NOTHING
    most, busy, late = max(cells)
    left, wide, tall = 34, 13.4, 24
    drawn = "".join(svg_text(left - 6, 17 + tall * day, name[:3], "end") for day, name in enumerate(_DAYS))
    drawn += "".join(svg_text(left + wide * hour, 186, f"{hour:02}:00") for hour in range(0, 24, 6))
    for n, day, hour in cells:
        said, strength = f"{_DAYS[day]} {hour:02}:00: {n:,}", n / max(most, 1)
        drawn += svg_rect("bar", left + wide * hour, 1 + tall * day, wide - 1, tall - 1, said, strength)
    drawn += svg_text(200, 219, "interactions, hour in UTC: 0", "end") + svg_text(278, 219, f"{most:,}")
    drawn += "".join(svg_rect("bar", 206 + 11 * i, 209, 11, 12, f"{most * i / 5:,.0f}", i / 5) for i in range(6))
    return svg(f"Interactions by weekday and hour, UTC. Most: {_DAYS[busy]} {late:02}:00, {most:,}.", drawn)


def _map(city: str, places: Sequence[Mapping[str, Any]], neighborhoods: Sequence[Mapping[str, Any]]) -> str:
    """Places as dots, area by visits and colour by category, under the names of the neighbourhoods; north is up."""
    shown = [*places, *neighborhoods]
    if not shown:
        return card(city, NOTHING, "wide")
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
        drawn += svg_text(x, y, p["name"], "middle")
    scale, foot = tick_step(km), edge + (north - south) * lat_km * unit + 3 * _DOT
    drawn += svg_line("scale", edge, foot, edge + scale * unit, foot) + svg_text(edge, foot - 8, f"{scale} km")
    kinds = [(c, name, sum(p["category"] == c for p in places)) for c, name in enumerate(COARSE_CATEGORIES)]
    key = "".join(f'<li><i class="c{c}"></i>{name} {n:,}</li>' for c, name, n in kinds)
    said = f"Places shown: {len(places):,}. The larger a dot, the more visits, up to {most:,}."
    chart = svg(f"Map of {city}: {said}", drawn, _MAP, ceil(foot) + 8)
    words = f'<div><p class="soft">{said}</p><ul class="key">{key}</ul></div>'
    return card(city, f'<div class="atlas">{words}{chart}</div>', "wide")


def _number(value: float, unit: str) -> str:
    return f"{value:.1%}" if unit == "%" else f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"


def _bound(value: float, unit: str) -> str:
    """The end of a range, as short as it was given."""
    return f"{100 * value:g}%" if unit == "%" else f"{value:,}" if isinstance(value, int) else f"{value:g}"
