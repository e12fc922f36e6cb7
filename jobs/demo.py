"""The pipeline, then a served API and a first look at what it answers."""

import threading
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from jobs import pipeline, serve
from jobs.report import Report
from recsys.settings import Settings

_USER = 42


def run(settings: Settings, report: Report) -> None:
    """Run every stage, serve, and show three places and three people for one user."""
    pipeline.run(settings, report)
    report.console.rule("[bold]recsys serve")
    user_id = min(_USER, settings.users - 1)

    def first_look(base: str) -> None:
        # in a thread: the server must go on answering while it is asked
        threading.Thread(target=show, args=(base, user_id, report.console), daemon=True).start()

    serve.run(settings, report, on_ready=first_look)


def show(base: str, user_id: int, console: Console) -> None:
    """Print three places and three people for a user, with scores and reasons."""
    with httpx.Client(base_url=base, timeout=10) as client:
        places = client.post("/recommend/places", json={"user_id": user_id, "top_k": 3})
        people = client.post("/recommend/people", json={"user_id": user_id, "top_k": 3})
    for kind, answer in (("Places to go", places), ("People to go with", people)):
        body = answer.json()
        if answer.status_code != 200:
            console.print(f"[red]{kind}: {body['detail']}[/]")
            continue
        console.print(_table(f"{kind} for user {user_id} in {body['city_name']}", body["recommendations"]))
    console.print(f"Look at {base} and {base}/docs, ask with curl, stop with Ctrl-C.")


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left", expand=False)
    for column in ("name", "where", "score", "why"):
        table.add_column(column, overflow="fold")
    for row in rows:
        score = row.get("score", row.get("combined_score"))
        table.add_row(row["name"], row.get("neighborhood_name", ""), f"{score:.3f}", " ".join(row["explanations"]))
    return table
