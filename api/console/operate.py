"""How the service and its data are: versions and what they reach, freshness, quality, and the reports as pages."""

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import pyarrow.compute as pc
import pyarrow.parquet as pq
from fastapi import APIRouter, Request
from fastapi import Path as PathParameter
from fastapi.responses import HTMLResponse

from api.console.desk import AtDesk, Desk
from api.console.job import run_command
from api.console.operate_schemas import (
    EpochOut,
    FreshOut,
    MeasuredOut,
    MethodOut,
    OperationsOut,
    PublishedOut,
    PublishRequest,
    SuiteOut,
    VersionOut,
    VersionsOut,
)
from api.dataset import wall
from api.fleet import Fleet
from api.keys import Operator
from api.routes import ERRORS, PROBLEM, Live
from recsys import services
from recsys.aggregates import VIEWS
from recsys.artifacts import MANIFEST, versions
from recsys.errors import NotFound
from recsys.inventory import last_run, read_report, table_on_disk
from recsys.recommend.reads import answering
from recsys.schemas import TABLES
from recsys.settings import Settings

_DEADLINE_S: Final = 300.0
_NEWEST: Final = 20
_JOBS: Final = ("generate", "ingest", "validate", "materialize", "train", "evaluate", "publish")
_PAGES: Final = ("training.html", "world.html", "quality/index.html")
_EVALUATION: Final = "evaluation.parquet"
# A report has its styles and pictures in itself, and nothing that runs.
_REPORT_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
REFUSED: Final = PROBLEM | {"description": "the command ended without having done it, and says why"}
Page = Annotated[
    str, PathParameter(pattern=r"^(quality/(docs/)?)?[a-z0-9_]{1,64}\.html$", description="under data/reports/")
]

router = APIRouter(prefix="/console", tags=["console"], responses=ERRORS)


@router.get("/versions")
async def show_versions(request: Request, desk: AtDesk, state: Live) -> VersionsOut:
    """Versions on disk, newest first, and what they reach."""
    fleet: Fleet = request.app.state.fleet
    live = state.engine.version if state.engine is not None else None
    return VersionsOut(
        versions=await asyncio.to_thread(_versions, desk.settings, live, set(fleet.names)),
        split=None if state.split is None else state.split.version,
        share=None if state.split is None else state.split.share,
        shadow=None if state.shadow is None else state.shadow.version,
    )


@router.get("/operations")
async def operations(desk: AtDesk, state: Live) -> OperationsOut:
    """Parts, degradations, how fresh everything is, and what the gate found last."""
    engine = state.require()
    stores = await answering(engine, state.now())
    found = await asyncio.to_thread(_on_disk, desk.settings, wall())
    parts = {name: "answers" if there else "does not answer" for name, there in stores.items()}
    return OperationsOut(
        parts=parts | {"model": "; ".join(state.troubles) or "loaded"},
        degradations=dict(sorted(engine.degradations.items())),
        **found,
    )


@router.get("/reports/{page:path}", response_class=HTMLResponse)
async def report(page: Page, desk: AtDesk) -> HTMLResponse:
    """A report that a job wrote, as it is."""
    path = desk.settings.reports / page
    try:
        content = await asyncio.to_thread(path.read_text, encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(f"there is no report {page}: the job that writes it has not run") from error
    return HTMLResponse(content, headers={"content-security-policy": _REPORT_POLICY})


@router.post("/publish", responses={409: REFUSED})
async def publish(body: PublishRequest, desk: AtDesk, _: Operator) -> PublishedOut:
    """`recsys publish`: refused where the version is worse than the one that serves, unless `force` is said."""
    force = ["--force"] if body.force else []
    return await _operate(desk, "publish", "--version", body.version, *force)


@router.post("/rollback", responses={409: REFUSED})
async def rollback(desk: AtDesk, _: Operator) -> PublishedOut:
    """`recsys rollback`: the version before is live again."""
    return await _operate(desk, "rollback")


async def _operate(desk: Desk, *args: str) -> PublishedOut:
    async with desk.operating.take():
        printed = await run_command(desk.settings, *args, "--json", deadline_s=_DEADLINE_S)
    said = json.loads(printed)
    compared = said.get("compared") or {}
    return PublishedOut(version=said["version"], sentence=compared.get("sentence"))


def _versions(settings: Settings, live: str | None, loaded: set[str]) -> list[VersionOut]:
    tested = read_report(settings.reports / "evaluate.json")
    names = versions(settings.artifacts)[::-1][:_NEWEST]
    return [_version(settings, name, live, loaded, tested) for name in names]


def _version(
    settings: Settings, name: str, live: str | None, loaded: set[str], tested: Mapping[str, Any] | None
) -> VersionOut:
    folder = settings.artifacts / name
    said = read_report(folder / MANIFEST) or {}
    metrics = said.get("metrics", {})
    validation = metrics.get("validation", {})
    people = {key: value for key, value in validation.items() if isinstance(value, float)}
    return VersionOut(
        version=name,
        created_at=said.get("created_at"),
        until=said.get("until"),
        live=name == live,
        loaded=name in loaded,
        looks_back=bool(said.get("backtest")),
        ndcg=_mean(folder / _EVALUATION),
        validation=_methods(validation.get("rows", {})),
        people=people,
        history=[
            EpochOut(stage=e["stage"], reads=e.get("reads"), epoch=e["epoch"], ndcg=e.get("ndcg"))
            for e in metrics.get("history", [])
            if "epoch" in e
        ],
        tested=MeasuredOut(
            test_from=tested["test_from"], users=tested["users"], rows=_methods(tested.get("places", {}))
        )
        if tested is not None and tested.get("version") == name
        else None,
    )


def _methods(rows: Mapping[str, Mapping[str, float]]) -> list[MethodOut]:
    return [
        MethodOut(method=name, recall=row["recall"], ndcg=row["ndcg"], candidate_recall=row["candidate_recall"])
        for name, row in rows.items()
    ]


def _mean(path: Path) -> float | None:
    """Of the users that a version was measured on."""
    if not path.exists():
        return None
    mean: float | None = pc.mean(pq.read_table(path, columns=["ndcg"])["ndcg"]).as_py()
    return mean


def _on_disk(settings: Settings, now: datetime) -> dict[str, Any]:
    online = services.figures(settings.redis_url) or {}
    quality = [read_report(settings.reports / "quality" / f"{part}.json") or {} for part in ("tables", "views")]
    tables = quality[0]
    pages = [page for page in _PAGES if (settings.reports / page).exists()]
    return {
        "online_keys": online.get("keys"),
        "online_memory_mb": online.get("memory_mb"),
        "features": [_fresh(v, table_on_disk(settings.features / f"{v}.parquet", now)) for v in VIEWS],
        "tables": [_fresh(t, table_on_disk(settings.lake / f"{t}.parquet", now)) for t in TABLES],
        "jobs": [
            _fresh(job, last_run(settings.reports / f"{job}.json", now))
            for job in _JOBS
            if (settings.reports / f"{job}.json").exists()
        ],
        "severity": tables.get("severity"),
        "refused": tables.get("refused"),
        "suites": [_suite(name, said) for part in quality for name, said in part.get("suites", {}).items()],
        "reports": pages,
    }


def _fresh(name: str, found: Mapping[str, Any] | None) -> FreshOut:
    return FreshOut(name=name, **{k: v for k, v in (found or {}).items() if k in FreshOut.model_fields})


def _suite(name: str, said: Mapping[str, Any]) -> SuiteOut:
    rules, drift = said.get("rules", []), said.get("drift") or {}
    distances = [(m["distance"], m["column"]) for m in drift.get("measures", []) if m.get("distance") is not None]
    furthest = max(distances, default=(None, None))
    return SuiteOut(
        name=name,
        severity=said["severity"],
        rows=said.get("rows"),
        rejected=said.get("rejected"),
        rules=len(rules),
        broken=[rule["name"] for rule in rules if rule["broken"]],
        drift=furthest[0],
        drifted=furthest[1],
    )
