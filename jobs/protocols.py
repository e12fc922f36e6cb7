"""Simple methods on the accepted data, city by city, by a protocol: what a model has to beat there."""

import numpy as np
from rich.table import Table

from jobs.report import Report
from recsys.errors import ConfigError, NotReady
from recsys.lake import Lake
from recsys.settings import Settings
from recsys.training.comparison import compare_people, compare_places, protocol_rows
from recsys.training.protocols import Ints, PlacesProtocol

PROTOCOLS = ("new", "all", "friends")
_VISITS = """
SELECT i.user_id, i.place_id, epoch_us(i.timestamp) AS moment FROM interactions i JOIN places p USING (place_id)
WHERE p.city_id = $city ORDER BY ALL
"""
# A friendship of before is known before the data end; one that is known only at their end is what to foresee.
_TIES = """
SELECT e.user_u, e.user_v, epoch_us(e.as_of) < epoch_us($end) AS before FROM user_user_edges e
JOIN users u ON u.user_id = e.user_u WHERE u.home_city_id = $city ORDER BY ALL
"""
_PEOPLE = "SELECT user_id FROM users WHERE home_city_id = $city AND epoch_us(as_of) < epoch_us($end) ORDER BY 1"


def run(settings: Settings, report: Report, *, protocol: str) -> None:
    """Measure the simple methods of a protocol and print a table a city.

    Args:
        settings: where things are.
        report: the rows, by city and method.
        protocol: "new" (places not visited before the cut), "all" (revisits too) or "friends".

    Raises:
        ConfigError: another protocol.
        NotReady: nothing has been accepted, or no friendship is known only at the end of the data.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"--protocol must be one of {', '.join(PROTOCOLS)} (got {protocol!r})")
    report["protocol"] = protocol
    report["cities"] = {}
    with Lake(settings.data_dir, threads=settings.threads, memory_limit_gb=settings.memory_limit_gb) as lake:
        _, end = lake.horizon()
        names = lake.query("SELECT DISTINCT city_id, city_name FROM places ORDER BY city_id").to_pylist()
        for city in names:
            with report.stage(city["city_name"]):
                if protocol == "friends":
                    rows = _friends(lake, city["city_id"], end)
                else:
                    rows = _places(lake, city["city_id"], end, "new" if protocol == "new" else "all")
            report.figures["cities"][city["city_name"]] = rows
            report.console.print(_table(f"{city['city_name']}, protocol {protocol}", rows))


def _columns(lake: Lake, sql: str, **params: object) -> tuple[Ints, ...]:
    table = lake.query(sql, params)
    return tuple(np.asarray(table[name].to_numpy(), dtype=np.int64) for name in table.column_names)


def _places(lake: Lake, city: int, end: object, protocol: PlacesProtocol) -> dict[str, dict[str, float]]:
    user, place, moment = _columns(lake, _VISITS, city=city)
    u, v, before = _columns(lake, _TIES, city=city, end=end)
    edges = np.stack([u, v], axis=1)[before == 1]
    known = edges if len(edges) else None
    return protocol_rows(compare_places(user, place, moment, protocol=protocol, edges_before=known))


def _friends(lake: Lake, city: int, end: object) -> dict[str, dict[str, float]]:
    u, v, before = _columns(lake, _TIES, city=city, end=end)
    ties = np.stack([u, v], axis=1)
    if before.all():
        raise NotReady("no friendship is known only at the end of the data: nothing to foresee (see docs/own-data.md)")
    (users,) = _columns(lake, _PEOPLE, city=city, end=end)
    user, place, _ = _columns(lake, _VISITS, city=city)
    return protocol_rows(compare_people(ties[before == 1], ties[before == 0], users, visits=(user, place)))


def _table(title: str, rows: dict[str, dict[str, float]]) -> Table:
    table = Table(title=title, title_justify="left")
    metrics = list(next(iter(rows.values())))
    for name in ("method", *metrics):
        table.add_column(name, justify="left" if name == "method" else "right")
    for method, row in rows.items():
        table.add_row(method, *(f"{row[m]:.4f}" for m in metrics))
    return table
