"""A version on the test weeks, which no training window and no stopping decision has seen."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from rich.table import Table

from jobs import training_page
from jobs.opened import load_model, opened
from jobs.oracle import bounds, friend_aucs, known_truth, write_lists
from jobs.report import Report
from jobs.scorecard import keep
from recsys.artifacts import newest, open_artifact
from recsys.dataset import read_source
from recsys.settings import Settings
from recsys.training.cold import measure_cold
from recsys.training.evaluation import METRICS, Evaluation, embed, evaluate
from recsys.training.inputs import prepare
from recsys.training.picture import vector_maps, worst_users
from recsys.training.retrieval import exact_recall
from recsys.training.shelf import Shelf
from recsys.training.snapshots import split_weeks, take_snapshot

_PEOPLE = ("friend_auc", "attend_auc", "attend_auc_compatible", "friend_ece", "attend_ece")


def run(settings: Settings, report: Report, *, version: str | None = None) -> None:
    """Measure a version, beside random, popularity and everyone's own history, and keep its figures beside it.

    Raises:
        NotReady: there is no version, or no lake.
        ArtifactError: the version is damaged, or was trained with another taxonomy than the lake's.
    """
    artifact = open_artifact(settings.artifacts, version or newest(settings.artifacts))
    model = load_model(artifact)
    truth = known_truth(settings, read_source(settings.lake))
    files = settings.data_dir / "checkpoints" / f"{artifact.version}.evaluate"
    with Shelf(files) as shelf, opened(settings) as (lake, store):
        artifact.require_taxonomy(lake.taxonomy())
        split, data, names = split_weeks(*lake.horizon()), lake.fingerprint(), training_page.Names.of(lake)
        with report.stage("snapshot at the cut"):
            prepared = shelf.put(prepare(take_snapshot(lake, store, *split.test), model.config))
        with report.stage("evaluate"):
            vectors = embed(model, prepared)
            result = evaluate(model, prepared, embeddings=vectors, beside=bounds(truth, prepared))
            exact = exact_recall(model, prepared, vectors)
            worst = worst_users(model, prepared, vectors, result, cities=names.cities, places=names.places)
        prepared.forget()  # nothing below asks its sources, and the next snapshot is as large
        shelf.rest()
        seen = split.test[0] + timedelta(days=(split.test[1] - split.test[0]).days // 2)
        with report.stage("snapshot of whom the cut did not know"):
            later = shelf.put(prepare(take_snapshot(lake, store, seen, split.test[1]), model.config))
        with report.stage("evaluate cold start"):
            cold = measure_cold(model, prepared, later, beside=lambda asked: bounds(truth, asked))
        del later
    keep(artifact, result, data=data, window=split.test)
    report.update(version=artifact.version, test_from=split.test[0].isoformat(), users=result.users)
    report["places"] = _rounded(result)
    report["exact_top_10_among_candidates"] = None if exact is None else round(exact, 5)
    report["model_minus_popularity"] = result.difference
    people: dict[str, tuple[float | None, ...]] = {"model": tuple(getattr(result, name) for name in _PEOPLE)}
    if truth:
        people["oracle"] = (*friend_aucs(settings, prepared.snapshot), None, None)
    report["cold"] = {kind: {"users": one.users, **_rounded(one)} for kind, one in cold.items()}
    report["people"] = {name: dict(zip(_PEOPLE, row, strict=True)) for name, row in people.items()}
    if truth:
        with report.stage("lists of the oracle"):
            report["oracle_lists"] = write_lists(settings, truth, split.test)
    with report.stage("draw the page"):
        report["page"] = training_page.write(
            settings.reports, artifact.version, artifact.manifest["metrics"], names, result, prepared.snapshot,
            weeks="test weeks", window=split.test,
            maps=vector_maps(prepared, vectors, cities=names.cities, categories=names.categories),
            worst=worst,
        )  # fmt: skip
    report.console.print(_table(result), _people_table(people), _cold_table(cold, seen))


def _rounded(result: Evaluation) -> dict[str, dict[str, float]]:
    return {name: {m: round(v, 5) for m, v in row.items()} for name, row in result.rows.items()}


def _cold_table(cold: Mapping[str, Evaluation], seen: datetime) -> Table:
    title = f"cold: first seen after the cut, as known at {seen:%Y-%m-%d}, measured from then on"
    table = Table("method", title=title, title_justify="left")
    for kind, one in cold.items():
        about = "to cold users" if kind == "users" else "of cold places to anyone"
        table.add_column(f"ndcg {about} ({one.users:,})", justify="right")
    for method in dict.fromkeys(name for one in cold.values() for name in one.rows):
        table.add_row(method, *(f"{one.rows[method]['ndcg']:.4f}" for one in cold.values()))
    if not cold:
        table.add_row("nobody and nothing was first seen between the cut and then")
    return table


def _people_table(people: Mapping[str, tuple[float | None, ...]]) -> Table:
    table = Table(
        title="friend labels of the test weeks: area under the ROC curve, calibration error", title_justify="left"
    )
    table.add_column("method")
    for name in _PEOPLE:
        table.add_column(name.replace("_", " "), justify="right")
    for method, row in people.items():
        table.add_row(method, *("–" if value is None else f"{value:.4f}" for value in row))
    return table


def _table(result: Evaluation) -> Table:
    table = Table(title=f"test weeks, {result.users:,} users, full catalogue of the city", title_justify="left")
    table.add_column("method")
    for metric in METRICS:
        table.add_column(metric, justify="right")
    for name, row in result.rows.items():
        table.add_row(name, *(f"{row[m]:.4f}" for m in METRICS))
    low_high = (f"{d['low']:+.4f} … {d['high']:+.4f}" for d in (result.difference[m] for m in METRICS))
    table.add_row("[dim]model − popularity, 95 %[/]", *low_high)
    return table
