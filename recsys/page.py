"""One way to make a page: HTML that needs no network and no script, readable in light, dark and on a phone.

What comes with the data is escaped where a docstring does not say that it must be already.
"""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import count
from math import ceil
from typing import Final

# The quality report's look. The colours c0 to c6 (Tol's "bright" and an
# orange) stay apart for colour-blind eyes, on light and dark; c7 is for what is left over.
STYLE: Final = """
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
.c0{--c:#cb4}.c1{--c:#e67}.c2{--c:#a37}.c3{--c:#47a}.c4{--c:#283}.c5{--c:#6ce}.c6{--c:#e83}.c7{--c:#888}
.c0,.c1,.c2,.c3,.c4,.c5,.c6,.c7{fill:var(--c);background:var(--c)}
polyline.line{fill:none;background:none;stroke:var(--c);stroke-width:2}
@media (prefers-color-scheme:dark){.c2{--c:#d6a}.c3{--c:#69d}.c4{--c:#4b5}}
"""
Ticks = Iterable[tuple[float, str]]  # a place along an axis, and what to write there
NOTHING: Final = '<p class="soft">Nothing to draw.</p>'
# A chart's view box and the plot within it: on a card one unit is about one pixel, so that text stays legible.
WIDTH, HEIGHT = 360, 236
LEFT, RIGHT, TOP, BOTTOM = 56, 344, 22, 196


def document(title: str, header: str, cards: Iterable[str], style: str = STYLE) -> str:
    """A whole page.

    Args:
        title: also its heading.
        header: what stands under the heading.
        cards: the parts, see `card`.
        style: of the page.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>"
        f"<header><h1>{escape(title)}</h1>{header}</header>{''.join(cards)}</main></body></html>\n"
    )


def bar_chart(
    title: str, bars: Sequence[tuple[str, int]], ticks: Ticks, across: str, up: str, mark: int = 0, marked: str = ""
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
        return NOTHING
    which, most = max(bars, key=lambda bar: bar[1])
    step, width = tick_step(most), (RIGHT - LEFT) / len(bars)
    top = step * max(ceil(most / step), 1)
    heights = [(n / top, f"{n:,}") for n in range(0, top + 1, step)]
    drawn = axes([(at / len(bars), said) for at, said in ticks], heights, across, up)
    for i, (name, n) in enumerate(bars):
        kind, y = "low" if i < mark else "bar", y_at(n / top)
        drawn += svg_rect(kind, LEFT + (i + 0.08) * width, y, 0.84 * width, BOTTOM - y, f"{name}: {n:,}")
    if marked:
        x = LEFT + mark * width
        drawn += svg_line("mark", x, BOTTOM, x, TOP) + svg_text(x + 5, TOP + 9, marked)
    return svg(f"{title}. Most: {which}, {most:,}.", drawn)


def axes(xticks: Ticks, yticks: Ticks, across: str, up: str) -> str:
    """Lines and what stands at them; a tick here is at a share of its axis."""
    drawn = svg_text(0, 10, up) + svg_text(RIGHT, BOTTOM + 34, across, "end")
    for share, said in yticks:
        drawn += svg_line("grid", LEFT, y_at(share), RIGHT, y_at(share)) + svg_text(
            LEFT - 6, y_at(share) + 4, said, "end"
        )
    return drawn + "".join(svg_text(x_at(share), BOTTOM + 16, said, "middle") for share, said in xticks)


def x_at(share: float) -> float:
    """Where a share of the horizontal axis lies."""
    return LEFT + share * (RIGHT - LEFT)


def y_at(share: float) -> float:
    """Where a share of the vertical axis lies."""
    return BOTTOM - share * (BOTTOM - TOP)


def tick_step(most: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, … that covers `most` in at most five steps."""
    steps = (lead * int(10**e) for e in count() for lead in (1, 2, 5))
    return next(step for step in steps if 5 * step >= most)


def svg(said: str, drawn: str, width: int = WIDTH, height: int = HEIGHT) -> str:
    """An image that says what it shows; `said` need not be escaped, what is drawn must be."""
    box = f'viewBox="0 0 {width} {height}"'
    return f'<svg role="img" aria-label="{escape(said)}" {box}>{drawn}</svg>'


def svg_text(x: float, y: float, said: str, anchor: str = "start") -> str:
    """Words at a point."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def svg_line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """A line of a kind: grid, mark or scale."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def svg_rect(kind: str, x: float, y: float, width: float, height: float, said: str, strength: float = 1) -> str:
    """A rectangle that says what it is; `strength` in [0, 1] is how full its colour is."""
    box = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    faint = 0.07 + 0.93 * strength  # nothing is still a cell
    return f'<rect class="{kind}" {box} fill-opacity="{faint:.2f}"><title>{escape(said)}</title></rect>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all but the first column stand right, cells must be escaped already."""
    lines = ""
    for tag, (first, *rest) in [("th", heads), *(("td", row) for row in rows)]:
        cells = "".join(f'<{tag} class="n">{cell}</{tag}>' for cell in rest)
        lines += f"<tr><{tag}>{first}</{tag}>{cells}</tr>"
    return f'<div class="scroll"><table>{lines}</table></div>'


def card(title: str, body: str, kind: str = "narrow") -> str:
    """A part of the page under a heading; narrow, or as wide as the page."""
    return f'<section class="{kind}"><h2>{escape(title)}</h2>{body}</section>'
