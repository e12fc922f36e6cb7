"""The arithmetic of `docs/scaling.md`: from the figures in `docs/scaling.json` to its tables.

`python -m tests.scaling` writes them into the page, between their marks.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tests.conftest import ROOT

PAGE, FIGURES = ROOT / "docs" / "scaling.md", ROOT / "docs" / "scaling.json"
STAGES = ("generate", "validate", "materialize", "train", "evaluate", "publish")
MOST = 1.15  # the exponent that a stage may have
BILLS = (1_000_000, 10_000_000, 100_000_000)
HOUR, MONTH = 3_600, 30  # seconds; days
Row = Sequence[object]


def load() -> dict[str, Any]:
    """What was measured, and what is assumed."""
    said: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8"))
    return said


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """Of y = a x^b through (x, y) points: the least squares of their logarithms."""
    xs, ys = ([math.log(point[i]) for point in points] for i in (0, 1))
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def costs(run: Mapping[str, Any], stage: str, what: str) -> float | None:
    """A figure of a run's stage; None where it was not measured."""
    found = run["stages"].get(stage, {}).get(what)
    return None if found is None else float(found)


def points(runs: Sequence[Mapping[str, Any]], stage: str, of: str, what: str = "cpu_s") -> list[tuple[float, float]]:
    """(size, figure) of the runs that have it."""
    return [(float(run[of]), cost) for run in runs if (cost := costs(run, stage, what)) is not None]


def stages(said: Mapping[str, Any]) -> list[Row]:
    """Seconds of processor time and memory of every stage and size."""
    runs = said["runs"]
    rows: list[Row] = [["stage", *(f"{run['users']:,} × {run['places']:,}" for run in runs)]]
    rows.append(["interactions", *(f"{run['interactions']:,}" for run in runs)])
    for stage in STAGES:
        cells = []
        for run in runs:
            cpu, gb = costs(run, stage, "cpu_s"), costs(run, stage, "peak_gb")
            cells.append("" if cpu is None or gb is None else f"{cpu:,.0f} s, {gb:.1f} GB")
        rows.append([f"`{stage}`", *cells])
    return rows


def growth(said: Mapping[str, Any]) -> list[Row]:
    """Exponents of processor time."""
    runs = said["runs"]
    rows: list[Row] = [["stage", "users, the last two sizes", "interactions, the last two", "interactions, all three"]]
    with_users = exponent([(run["users"], run["interactions"]) for run in runs[-2:]])
    rows.append(["interactions", f"{with_users:.2f}", "1", "1"])
    for stage in STAGES:
        cells = []
        for of, some in (("users", runs[-2:]), ("interactions", runs[-2:]), ("interactions", runs)):
            found = points(some, stage, of)
            cells.append(f"{exponent(found):.2f}" if len(found) == len(some) else "")
        rows.append([f"`{stage}`", *cells])
    return rows


def units(said: Mapping[str, Any]) -> dict[str, float]:
    """What one of each costs, from the largest run that has it."""
    run, made, step = said["runs"][-1], said["embed"], said["step"]
    per_event = {stage: (costs(run, stage, "cpu_s") or 0.0) / run["interactions"] for stage in STAGES[:3]}
    online = said["online"]
    return {
        "interactions a user": run["interactions"] / run["users"],
        "pairs a user": run["keys_online"]["user_place"] / run["users"],
        "graph pairs a user": said["pairs_ever_a_user"],
        "ties a user": run["social_edges"] / run["users"],
        "validate_us": 1e6 * per_event["validate"],
        "materialize_us": 1e6 * per_event["materialize"],
        "lake_bytes": 1e6 * said["disk_mb"]["lake"] / run["interactions"],
        "features_bytes": 1e6 * said["disk_mb"]["features"] / run["interactions"],
        "online_bytes": online["bytes"] / online["pairs"],
        "step_us": 1e6 * step["cpu_s"] / step["pairs"],
        "step_bytes": 1e9 * step["peak_gb"] / step["pairs"],
        "embed_us": 1e6 / made["users_per_cpu_s"],
        "vector_bytes": 2 * 4 * said["d_model"],
        "memory_bytes": said["memory_bytes_a_pair"] * said["pairs_ever_a_user"],
        "place_ms": said["request"]["places_ms"],
        "people_ms": said["request"]["people_ms"],
    }


def unit_table(said: Mapping[str, Any]) -> list[Row]:
    """Unit costs, and what they are of."""
    u, largest = units(said), "the largest run"
    disk = f"{u['lake_bytes']:.0f}; {u['features_bytes']:.0f} bytes of disk"
    step = f"{u['step_us']:.1f} µs, {u['step_bytes']:.0f} bytes"
    held = f"by the widths of their matrices: {said['memory_bytes_a_pair']} bytes a pair ever seen"
    return [
        ["of one", "costs", "where it is measured"],
        ["interaction: `validate`", f"{u['validate_us']:.1f} µs", largest],
        ["interaction: `materialize`, everything made anew", f"{u['materialize_us']:.1f} µs", largest],
        ["interaction: lake; feature views", disk, largest],
        [
            "pair of a user and a place of the last 28 days: online store, all else in it included",
            f"{u['online_bytes']:.0f} bytes of memory",
            said["online"]["where"],
        ],
        ["pair of the graph, all of a year: a training step", step, said["step"]["where"]],
        ["user: `embed`", f"{u['embed_us']:.0f} µs", f"{said['embed']['users']:,} users, `make bench`"],
        [
            "user: vectors in a version, in the index, in an API process",
            f"{u['vector_bytes']:.0f} bytes",
            "by their widths",
        ],
        ["user: what the sources of places hold in an API process", f"{u['memory_bytes'] / 1e3:.1f} kB", held],
        ["request for places; for people", f"{u['place_ms']:g} ms; {u['people_ms']:g} ms", said["request"]["where"]],
    ]


def moves(said: Mapping[str, Any]) -> list[Row]:
    """How many users a machine holds, part by part, and what comes after it."""
    u, machine = units(said), said["machine"]
    memory, hours = machine["memory_gb"] * 1e9, machine["hours"]
    seconds = machine["cores"] * hours * HOUR
    views = u["interactions a user"] * (u["validate_us"] + u["materialize_us"]) / 1e6
    steps = said["training"]["epochs"] * said["training"]["steps_per_epoch"]
    table = [
        (
            "gate and feature views (DuckDB)",
            seconds / views,
            f"all made anew in {hours} h; beyond its memory limit DuckDB goes to disk",
            "a day at a time, or SQL on a cluster",
        ),
        (
            "online store (one Redis)",
            memory / 2 / (u["pairs a user"] * u["online_bytes"]),
            "half of the memory, the rest for its copies while it writes",
            "Redis Cluster",
        ),
        (
            "training, memory",
            memory / (u["graph pairs a user"] * u["step_bytes"]),
            "one step over the whole graph",
            "a sample of users, or a GPU; everybody's vectors by `recsys embed`",
        ),
        (
            "training, time",
            seconds / (u["graph pairs a user"] * u["step_us"] / 1e6 * steps),
            f"{steps} steps in {hours} h, all cores at work",
            "a GPU: a step takes a hundredth there ([model.md](model.md))",
        ),
        (
            "`embed`",
            seconds * 1e6 / u["embed_us"],
            f"the network's passes in {hours} h; making the parts costs more",
            "parts on several machines: layers are the only barriers",
        ),
        (
            "an API process",
            memory / 4 / (u["vector_bytes"] + u["memory_bytes"]),
            "four processes on the machine",
            "a group of processes a city: sources of one city never read another's",
        ),
    ]
    rows: list[Row] = [["part", "holds up to", "where", "then"]]
    rows += [[part, f"{short(most)} users", where, then] for part, most, where, then in table]
    limit = f"{said['ease_limit']:,} places"
    left_out = "nothing: the source `ease` is left out, `similar` stays"
    return [*rows, ["a city's places", limit, "a limit of the code: EASE inverts a matrix of this side", left_out]]


def _month(said: Mapping[str, Any], users: int) -> dict[str, dict[str, float]]:
    """What users take in a month: by kind of price, what and how much."""
    u, use = units(said), said["assumed"]
    steps = said["training"]["epochs"] * said["training"]["steps_per_epoch"]
    trained = min(users, use["trained_users"]) * u["graph pairs a user"] * u["step_us"] / 1e6 * steps * 4
    views = users * u["interactions a user"] * (u["validate_us"] + u["materialize_us"]) / 1e6 * MONTH
    answered = users * use["requests_a_day"] * (u["place_ms"] + u["people_ms"]) / 2e3 * MONTH * use["peak"]
    sample, in_process = short(use["trained_users"]), u["vector_bytes"] + u["memory_bytes"]
    on_disk = u["interactions a user"] * (u["lake_bytes"] + u["features_bytes"]) + u["vector_bytes"]
    return {
        "core_hour": {
            "gate and views, all anew every day: core hours": views / HOUR,
            f"training, weekly, on {sample} users: core hours": trained / HOUR,
            "everybody's vectors, daily: core hours": users * u["embed_us"] / 1e6 * MONTH / HOUR,
            f"answers, {use['requests_a_day']} a user and day: core hours": answered / HOUR,
        },
        "memory_gb_month": {
            "online store, with a replica: GB of memory": 2 * users * u["pairs a user"] * u["online_bytes"] / 1e9,
            f"API processes, {use['processes']} a city: GB of memory": use["processes"] * users * in_process / 1e9,
            # graph of the index and payload: half as much again as the vectors
            "vector index, with a replica: GB of memory": 2 * 1.5 * users * u["vector_bytes"] / 1e9,
        },
        "disk_gb_month": {"lake, views, versions, three copies: GB of disk": 3 * users * on_disk / 1e9},
    }


def bill(said: Mapping[str, Any]) -> list[Row]:
    """What a month takes, and costs at the prices assumed."""
    months = [_month(said, users) for users in BILLS]
    rows: list[Row] = [["a month of", *(f"{short(users)} users" for users in BILLS)]]
    for kind in months[0]:
        rows += [[name, *(f"{month[kind][name]:,.0f}" for month in months)] for name in months[0][kind]]
    totals = [sum(said["prices"][kind] * sum(lines.values()) for kind, lines in month.items()) for month in months]
    rows.append(["**US dollars**", *(f"**{total:,.0f}**" for total in totals)])
    each = (f"{1e3 * total / users:.2f}" for total, users in zip(totals, BILLS, strict=True))
    return [*rows, ["US dollars a thousand users", *each]]


def embedded(said: Mapping[str, Any]) -> list[Row]:
    """What `embed` took, and whether its memory is flat."""
    made = said["embed"]
    return [
        ["users", "peak memory", "users a second of processor time", "users a second"],
        [f"{made['users'] // 4:,}", f"{made['quarter_peak_gb']:.2f} GB", "", ""],
        [f"{made['users']:,}", f"{made['peak_gb']:.2f} GB", f"{made['users_per_cpu_s']:,}", f"{made['users_per_s']:,}"],
    ]


TABLES = {"stages": stages, "growth": growth, "units": unit_table, "moves": moves, "embed": embedded, "bill": bill}


def render(page: str, said: Mapping[str, Any]) -> str:
    """The page with its tables made anew."""
    for name, make in TABLES.items():
        table = _markdown(make(said))
        page, found = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m, t=table: m[1] + t + m[2], page, flags=re.DOTALL
        )
        assert found == 1, f"the page has no place for the table {name}"
    return page


def _markdown(rows: Sequence[Row]) -> str:
    head, *body = [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body]) + "\n"


def short(n: float) -> str:
    """Two figures of a large number: 1,234,567 → 1.2 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, ",000")):
        if n >= size:
            value = n / size
            return f"{value:.2g}{unit}" if value < 100 else f"{value:.0f}{unit}"
    return f"{n:.0f}"


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), load()), encoding="utf-8")
