"""The training report: how a version learned and what it reaches, one HTML page that needs no network and no script."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil
from typing import Any, Final

from recsys.page import (
    BOTTOM,
    LEFT,
    NOTHING,
    RIGHT,
    TOP,
    Ticks,
    axes,
    card,
    document,
    svg,
    svg_line,
    svg_text,
    table,
    x_at,
    y_at,
)
from recsys.training.calibration import ReliabilityBin

_COLOURS: Final = 7  # c0 to c6; what is more shares c7
_WIDE: Final = 320  # of a map of vectors, which is square


@dataclass(frozen=True)
class _Line:
    """A curve: its name, and values by epoch."""

    name: str
    values: Sequence[float]


def page(about: Mapping[str, Any], picture: Mapping[str, Any]) -> str:
    """Draw the page. It holds no time of day, so that the same run gives the same page.

    Args:
        about: version, measured_on (which weeks, in words), users (how many had a target), reads, best_epoch.
        picture: what there is to draw. history: as of `trainer.Fitted`. groups: see `picture.group_rows`. ece: by
            "friend" and "attend" the expected calibration error, or None; reliability: the tables behind it. worst: see
            `picture.worst_users`, or None where nobody was looked at. maps: see `picture.vector_maps`.

    Returns:
        One HTML document; everything that came with the data is escaped.
    """
    groups, history = picture["groups"], picture["history"]
    said = f"Version {about['version']}, measured on {about['measured_on']}, {about['users']:,} users."
    said += f" The place head reads by “{about['reads']}”, from epoch {about['best_epoch']}."
    cards = [
        card("Places, NDCG@10", _groups(groups["all"], ""), "wide"),
        card("Losses of the vectors", _losses(history)),
        card("The vectors by epoch", _vectors(history)),
        card("The place head by epoch", _head(history)),
        card("By home city", _groups(groups["city"], "city"), "wide"),
        card("By places known of a user", _groups(groups["activity"], "places"), "wide"),
        *(
            card(title, _calibration(picture["reliability"].get(name, ()), picture["ece"].get(name)))
            for name, title in (
                ("friend", "Do they match: said and true"),
                ("attend", "Would they come: said and true"),
            )
        ),
        *(card(one["title"], _map(one)) for one in picture["maps"]),
    ]
    if picture["worst"] is not None:
        cards.append(card("The worst users", _worst(picture["worst"]), "wide"))
    return document("Training report", f'<p class="soft">{escape(said)}</p>', cards)


# ------------------------------------------------------------------------------------------------------------- curves
def _losses(history: Sequence[Mapping[str, Any]]) -> str:
    """Every loss over its first epoch's, since their sizes do not compare; the key says what they are."""
    epochs = [e for e in history if e["stage"] == "vectors"]
    names = dict.fromkeys(name for e in epochs for name in e["losses"])
    lines = []
    for name in names:
        values = [e["losses"].get(name, 0.0) for e in epochs]
        first = values[0] or 1.0
        lines.append(_Line(f"{name} {values[0]:.3f} → {values[-1]:.3f}", [v / first for v in values]))
    return _curves("Losses by epoch, over those of the first epoch", lines, "over the first epoch's")


def _vectors(history: Sequence[Mapping[str, Any]]) -> str:
    values = [float(e["ndcg"]) for e in history if e["stage"] == "vectors"]
    lines = [_Line(f"by the vectors alone, at last {values[-1]:.4f}", values)] if values else []
    return _curves("Validation NDCG@10 of the vectors by epoch", lines, "validation NDCG@10")


def _head(history: Sequence[Mapping[str, Any]]) -> str:
    ranked = [e for e in history if e["stage"] == "ranking"]
    lines = []
    for reads in dict.fromkeys(e["reads"] for e in ranked):
        for key, kind in (("ndcg", "all places"), ("ndcg_new", "new places")):
            values = [float(e[key]) for e in ranked if e["reads"] == reads]
            lines.append(_Line(f"by {reads}, {kind}, at best {max(values):.4f}", values))
    return _curves("Validation NDCG@10 of the place head by epoch", lines, "validation NDCG@10")


def _curves(title: str, lines: Sequence[_Line], up: str) -> str:
    """Lines over epochs, from zero; a key under them, and what each ends at for those who hear it."""
    if not lines:
        return NOTHING
    n = max(len(line.values) for line in lines)
    top = max(max(line.values) for line in lines) or 1.0
    every = ceil(n / 12)
    xticks: Ticks = [(_share(i, n), str(i + 1)) for i in range(0, n, every)]
    drawn = axes(xticks, [(k / 4, f"{top * k / 4:.2f}") for k in range(5)], "epoch", up)
    for i, line in enumerate(lines):
        points = " ".join(f"{x_at(_share(j, n)):.1f},{y_at(v / top):.1f}" for j, v in enumerate(line.values))
        shape = f'<polyline class="{_colour(i)} line" points="{points}"><title>{escape(line.name)}</title></polyline>'
        if len(line.values) == 1:  # a line of one point is not seen
            x, y = points.split(",")
            shape = f'<circle class="{_colour(i)}" cx="{x}" cy="{y}" r="4"><title>{escape(line.name)}</title></circle>'
        drawn += shape
    names = "; ".join(line.name for line in lines)
    return svg(f"{title}: {names}.", drawn) + _key([(line.name, i) for i, line in enumerate(lines)])


def _share(i: int, n: int) -> float:
    return i / (n - 1) if n > 1 else 0.5


def _colour(i: int) -> str:
    return f"c{min(i, _COLOURS)}"


def _key(names: Sequence[tuple[str, int]]) -> str:
    return (
        f'<ul class="key">{"".join(f"<li><i class={_colour(i)!r}></i>{escape(name)}</li>" for name, i in names)}</ul>'
    )


# ------------------------------------------------------------------------------------------------------------ figures
def _groups(rows: Sequence[Mapping[str, Any]], what: str) -> str:
    """A row a group: users, every method's mean with its interval, and the model less the best other one."""
    if not rows:
        return NOTHING
    methods = list(rows[0]["means"])
    others = [m for m in methods if m not in ("model", "oracle", "knowable")]  # these are bounds, nothing to beat
    lines = []
    for row in rows:
        cells = [_interval(row["means"][m], "") for m in methods]
        if others:
            best = max(others, key=lambda m: row["means"][m][0])
            cells.append(_interval(row["minus"][best], "+"))
        lines.append((escape(row["group"]), f"{row['users']:,}", *cells))
    heads = [what, "users", *(escape(m.replace("_", " ")) for m in methods)]
    note = '<p class="soft">Below: 95 % over users.</p>'
    return table([*heads, *(["model − best simple"] if others else [])], lines) + note


def _interval(ends: Sequence[float], sign: str) -> str:
    mean, low, high = ends
    return f'{mean:{sign}.3f}<div class="soft">{low:{sign}.3f} … {high:{sign}.3f}</div>'


def _calibration(bins: Sequence[ReliabilityBin], ece: float | None) -> str:
    """The share that came true over what was said; a dot a bin, its area by how many labels are in it."""
    if ece is None or not bins:
        return NOTHING
    quarters = [(k / 4, f"{k / 4:.0%}") for k in range(5)]
    drawn = axes(quarters, quarters, "probability that was said", "came true")
    drawn += svg_line("mark", LEFT, BOTTOM, RIGHT, TOP) + svg_text(x_at(0.3), y_at(0.42), "as said", "end")
    most, total = max(b.count for b in bins), sum(b.count for b in bins)
    points = " ".join(f"{x_at(b.probability):.1f},{y_at(b.outcome):.1f}" for b in bins)
    drawn += f'<polyline class="curve" points="{points}"/>'
    for b in bins:
        said = f"said {b.probability:.1%}, came true {b.outcome:.1%}, {b.count:,} labels"
        x, y, r = x_at(b.probability), y_at(b.outcome), max(9 * (b.count / most) ** 0.5, 2.0)
        drawn += f'<circle class="bar" cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"><title>{said}</title></circle>'
    words = f"Expected calibration error {ece:.4f} over {total:,} labels, {len(bins)} bins."
    return svg(f"What was said and what came true. {words}", drawn) + f'<p class="soft">{words}</p>'


def _worst(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return NOTHING
    items = []
    for row in rows:
        got = ", ".join(
            f'<b class="good">{escape(name)}</b>' if hit else escape(name)
            for name, hit in zip(row["got"], row["hits"], strict=True)
        )
        head = f"User {row['user_id']}, {escape(row['city'])}, {row['visited']:,} places known: NDCG {row['ndcg']:.3f}"
        wanted = ", ".join(map(escape, row["wanted"]))
        items.append(f"<li><b>{head}</b><p>wanted {len(row['wanted'])}: {wanted}</p><p>got: {got}</p></li>")
    said = "Lowest NDCG@10 first, of equals who wanted most; what was right is green."
    return f'<p class="soft">{said}</p><ul class="people">{"".join(items)}</ul>'


# --------------------------------------------------------------------------------------------------------------- maps
def _map(one: Mapping[str, Any]) -> str:
    """Dots on a square; the largest groups have a colour of their own."""
    x, y, group, names = one["x"], one["y"], one["group"], one["groups"]
    if not x:
        return NOTHING
    half = max(*map(abs, x), *map(abs, y)) or 1.0
    sizes = Counter(group)
    ordered = [g for g, _ in sizes.most_common()]
    colour = {g: i for i, g in enumerate(ordered)}
    middle, unit = _WIDE / 2, (_WIDE / 2 - 6) / half
    drawn = "".join(
        f'<circle class="{_colour(colour[g])}" cx="{middle + a * unit:.1f}" cy="{middle - b * unit:.1f}" r="2.5"/>'
        for a, b, g in zip(x, y, group, strict=True)
    )
    key = [(f"{names[g]} {sizes[g]:,}", colour[g]) for g in ordered[:_COLOURS]]
    if rest := sum(sizes[g] for g in ordered[_COLOURS:]):
        key.append((f"others {rest:,}", _COLOURS))
    words = f"{len(x):,} shown; the two directions hold {one['explained']:.0%} of the variance."
    return svg(f"{one['title']}: {words}", drawn, _WIDE, _WIDE) + f'<p class="soft">{words}</p>{_key(key)}'
