"""The pipeline, then a served API and a first look at what it answers."""

import threading
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs import pipeline, serve
from jobs.report import Report
from recsys.settings import Settings

_USER = 42


def run(settings: Settings, report: Report) -> None:
    """Run every stage, serve, and show three places and three people for one user; what it started, it stops."""
    user_id = min(_USER, settings.users - 1)

    def first_look(base: str) -> None:
        # in a thread: the server must go on answering while it is asked
        threading.Thread(target=show, args=(base, user_id, report.console), daemon=True).start()

    # Up before the first stage that needs it, or that stage would start it and nobody stop it.
    with serve.online_store(settings):
        pipeline.run(settings, report)
        report.console.rule("[bold]recsys serve")
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
    console.print(f"See it at {base}/console, try requests at {base}/docs, ask with curl, stop with Ctrl-C.")


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left", expand=False)
    cells = [
        {
            "name": row["name"],
            **({"where": row["neighborhood_name"]} if "neighborhood_name" in row else {}),
            "score": f"{row.get('score', row.get('combined_score')):.3f}",
            "why": " ".join(row["explanations"]),
        }
        for row in rows
    ]
    for column in cells[0] if cells else ():
        table.add_column(column, overflow="fold")
    for cell in cells:
        table.add_row(*(escape(text) for text in cell.values()))  # a name may hold what Rich takes for markup
    return table
