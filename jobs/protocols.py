"""Simple methods on the accepted data, city by city, by a protocol: what a model has to beat there, and a model."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np

from jobs.opened import load_model, opened
from jobs.protocol_table import differences_table, methods_table
from jobs.report import Report
from recsys.artifacts import Artifact, open_artifact
from recsys.errors import ConfigError, NotReady
from recsys.features import FeatureStore
from recsys.lake import Lake
from recsys.settings import Settings
from recsys.training.baselines import Scores
from recsys.training.comparison import compare_people, compare_places
from recsys.training.inputs import prepare
from recsys.training.measure import Measured
from recsys.training.model_scores import ModelPeople, ModelPlaces
from recsys.training.protocol_report import protocol_report
from recsys.training.protocols import Ints, PlacesProtocol, cut_at
from recsys.training.snapshots import take_snapshot

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
Model = Callable[[str, datetime], dict[str, Scores]]  # city and the moment from which on it must know nothing


def run(settings: Settings, report: Report, *, protocol: str, version: str | None = None) -> None:
    """Measure the simple methods of a protocol, and a version, and print a table a city.

    Args:
        settings: where things are.
        report: by city, where its test begins, the means by method, their intervals, the version less every other
            method, and the means by groups of users; see `ProtocolReport`.
        protocol: "new" (places not visited before the cut), "all" (revisits too) or "friends".
        version: a model version that knows nothing from the cut on: `recsys train --until DAY`.

    Raises:
        ConfigError: another protocol, or a version that knows what happened after a city's cut.
        NotReady: nothing has been accepted, or no friendship is known only at the end of the data.
        ArtifactError: the version is damaged, or was trained with another taxonomy than the lake's.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"--protocol must be one of {', '.join(PROTOCOLS)} (got {protocol!r})")
    parts = ("cuts", "users", "cities", "intervals", "model_minus", "activity")
    report.update(protocol=protocol, version=version, **{part: {} for part in parts})
    with opened(settings) as (lake, store):
        _, end = lake.horizon()
        model = _model(settings, lake, store, version, people=protocol == "friends")
        names = lake.query("SELECT DISTINCT city_id, city_name FROM places ORDER BY city_id").to_pylist()
        for city in names:
            name = city["city_name"]
            with report.stage(name):
                if protocol == "friends":
                    cut, measured = _friends(lake, city["city_id"], name, end, model)
                else:
                    asked: PlacesProtocol = "new" if protocol == "new" else "all"
                    cut, measured = _places(lake, city["city_id"], name, end, asked, model)
                found = protocol_report(measured)
            said = found.to_dict() | {"cuts": cut.isoformat(), "cities": found.rows}
            for part in parts:
                report.figures[part][name] = said[part]
            title = f"{name}, protocol {protocol}, {found.users:,} users, test from {cut:%Y-%m-%d %H:%M}"
            report.console.print(methods_table(title, found))
            if (differences := differences_table(found)) is not None:
                report.console.print(differences)
    if version is None:
        day = min(datetime.fromisoformat(cut) for cut in report.figures["cuts"].values())
        report.console.print(f"a model's row: `recsys train --until {day:%Y-%m-%d}`, then --version with its name")


def _model(settings: Settings, lake: Lake, store: FeatureStore, version: str | None, *, people: bool) -> Model:
    """The version's row for a city, once; nothing where no version was asked for."""
    if version is None:
        return lambda _city, _cut: {}
    artifact: Artifact = open_artifact(settings.artifacts, version)
    artifact.require_taxonomy(lake.taxonomy())
    until = datetime.fromisoformat(artifact.manifest["until"])
    made: dict[str, Scores] = {}

    def model(city: str, cut: datetime) -> dict[str, Scores]:
        if until > cut:
            raise ConfigError(
                f"--version {version} knows what happened up to {until:%Y-%m-%d}, and the test of {city} begins at "
                f"{cut:%Y-%m-%d %H:%M}: `recsys train --until {cut:%Y-%m-%d}`"
            )
        if not made:
            network = load_model(artifact)
            prepared = prepare(take_snapshot(lake, store, until, until), network.config)
            made["model"] = ModelPeople(network, prepared) if people else ModelPlaces(network, prepared)
        return made

    return model


def _columns(lake: Lake, sql: str, **params: object) -> tuple[Ints, ...]:
    table = lake.query(sql, params)
    return tuple(np.asarray(table[name].to_numpy(), dtype=np.int64) for name in table.column_names)


def _places(
    lake: Lake, city: int, name: str, end: datetime, protocol: PlacesProtocol, model: Model
) -> tuple[datetime, dict[str, Measured]]:
    user, place, moment = _columns(lake, _VISITS, city=city)
    u, v, before = _columns(lake, _TIES, city=city, end=end)
    edges = np.stack([u, v], axis=1)[before == 1]
    known = edges if len(edges) else None
    cut = cut_at(moment)
    at = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=cut)
    extra = model(name, at)
    return at, compare_places(user, place, moment, protocol=protocol, cut=cut, edges_before=known, extra=extra)


def _friends(lake: Lake, city: int, name: str, end: datetime, model: Model) -> tuple[datetime, dict[str, Measured]]:
    u, v, before = _columns(lake, _TIES, city=city, end=end)
    ties = np.stack([u, v], axis=1)
    if before.all():
        raise NotReady("no friendship is known only at the end of the data: nothing to foresee (see docs/own-data.md)")
    (users,) = _columns(lake, _PEOPLE, city=city, end=end)
    user, place, _ = _columns(lake, _VISITS, city=city)
    # as of the end itself they are known: a model must be from the midnight before, at the latest
    cut = end - timedelta(microseconds=1)
    extra = model(name, cut)
    return cut, compare_people(ties[before == 1], ties[before == 0], users, visits=(user, place), extra=extra)
