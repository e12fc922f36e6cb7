"""Ready questions to the lake, from a fixed list: a page says which, never what."""

import asyncio
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field

from api.console.desk import AtDesk, Desk
from api.console.job import run_command
from api.routes import ERRORS
from recsys.errors import JobRefused, NotFound
from recsys.settings import Settings

_DEADLINE_S: Final = 30.0
_MOST_ROWS: Final = 200
_MOST_CHARS: Final = 2_000  # of one cell
_MEMORY_GB: Final = 2.0
_NOT_READY: Final = "NotReady: "
_HEAD: Final = re.compile(r"^-- (\w+): (.+)\n(?:-- chart: (\w+) (\w+) (\w+)\n)?((?:(?!-- ).*\n?)+)", re.MULTILINE)


@dataclass(frozen=True)
class Question:
    """One question, its SQL, and what of the answer may be drawn: (kind, x, y)."""

    name: str
    title: str
    sql: str
    chart: tuple[str, str, str] | None


def _questions(text: str) -> dict[str, Question]:
    found = (
        Question(name, title, sql.strip(), (kind, x, y) if kind else None)
        for name, title, kind, x, y, sql in _HEAD.findall(text.partition("\n\n")[2])
    )
    return {question.name: question for question in found}


QUESTIONS: Final = _questions((Path(__file__).parent / "queries.sql").read_text(encoding="utf-8"))
Name = Annotated[str, PathParameter(pattern=r"^\w{1,40}$", description="of GET /console/queries")]

router = APIRouter(prefix="/console", tags=["console"], responses=ERRORS)


class ChartOut(BaseModel):
    """How an answer may be drawn."""

    kind: str = Field(description="bar or line")
    x: str = Field(description="column along")
    y: str = Field(description="column up")


class QuestionOut(BaseModel):
    """A question that may be asked."""

    name: str = Field(description="by which it is asked")
    title: str = Field(description="the question")
    sql: str = Field(description="what is run")
    chart: ChartOut | None = Field(description="null: a table says it best")


class QuestionsOut(BaseModel):
    """All of them."""

    queries: list[QuestionOut] = Field(description="in the order of the page")


class RowsOut(BaseModel):
    """An answer."""

    columns: list[str] = Field(description="names")
    rows: list[list[Any]] = Field(description=f"the first {_MOST_ROWS}; long texts and lists are cut")
    total: int = Field(description="how many rows there are")
    missing: str | None = Field(description="what has to exist before this can be asked; null: it was answered")


@router.get("/queries")
async def queries() -> QuestionsOut:
    """The questions of docs/queries.md."""
    return QuestionsOut(queries=[_out(question) for question in QUESTIONS.values()])


@router.get("/queries/{name}")
async def answer(name: Name, desk: AtDesk) -> RowsOut:
    """Ask one of them, read-only, in a process of its own, one at a time; an answer holds until data change."""
    question = QUESTIONS.get(name)
    if question is None:
        raise NotFound(f"there is no ready query {name} (got {', '.join(QUESTIONS)})")
    stamp = await asyncio.to_thread(_stamp, desk.settings)
    kept = desk.answers.get(name)
    if kept is not None and kept[0] == stamp:
        return RowsOut.model_validate(kept[1])
    said = await _ask(desk, question)
    desk.answers[name] = stamp, said.model_dump()
    return said


async def _ask(desk: Desk, question: Question) -> RowsOut:
    async with desk.asking.take():
        try:
            printed = await run_command(
                desk.settings, "sql", question.sql, "--format", "json", deadline_s=_DEADLINE_S,
                threads=1, memory_limit_gb=min(_MEMORY_GB, desk.settings.memory_limit_gb),
            )  # fmt: skip
        except JobRefused as error:
            if not str(error).startswith(_NOT_READY):
                raise
            return RowsOut(columns=[], rows=[], total=0, missing=str(error).removeprefix(_NOT_READY))
    rows = await asyncio.to_thread(json.loads, printed)
    return RowsOut(
        columns=list(rows[0]) if rows else [],
        rows=[[_short(cell) for cell in row.values()] for row in rows[:_MOST_ROWS]],
        total=len(rows),
        missing=None,
    )


def _stamp(settings: Settings) -> tuple[tuple[str, int], ...]:
    """When each file that a query may read last changed: as long as none has, an answer holds."""
    folders = (settings.lake, settings.features, settings.quarantine, settings.data_dir / "ids")
    return tuple(sorted((str(f), f.stat().st_mtime_ns) for folder in folders for f in folder.glob("*.parquet")))


def _out(question: Question) -> QuestionOut:
    chart = question.chart
    return QuestionOut(
        name=question.name,
        title=question.title,
        sql=question.sql,
        chart=None if chart is None else ChartOut(kind=chart[0], x=chart[1], y=chart[2]),
    )


def _short(cell: Any) -> Any:
    text = cell if isinstance(cell, str) else json.dumps(cell) if isinstance(cell, list | dict) else None
    return cell if text is None else text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}…"
