"""What the commands' options are, and what `--help` says of them."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON on standard output.")]
Files = Annotated[
    list[Path] | None, typer.Option("--suggest", help="Look at a file and print a first mapping; may be repeated.")
]
Protocol = Annotated[
    str | None, typer.Option(help="Simple methods, and a --version made with train --until: new, all or friends.")
]
Until = Annotated[datetime | None, typer.Option(help="As of this midnight, UTC; default: end of the data.")]
Full = Annotated[bool, typer.Option("--full", help="Make everything again, whatever changed.")]
Pit = Annotated[bool, typer.Option("--pit", help="Training rows against the raw events.")]
Parity = Annotated[bool, typer.Option("--parity", help="Online features against history.")]
Repair = Annotated[bool, typer.Option("--repair", help="Fill the online store again where it is off, and look again.")]
Samples = Annotated[int, typer.Option(min=1, help="Keys of each view.")]
Version = Annotated[str | None, typer.Option(help="Model version; default: the newest.")]
Force = Annotated[bool, typer.Option("--force", help="Generate again what is already there.")]
Insist = Annotated[bool, typer.Option("--force", help="Publish although it is worse than the version that serves.")]
MappingFile = Annotated[Path | None, typer.Argument(help="A mapping file (TOML); docs/own-data.md says how.")]
AcceptDrift = Annotated[bool, typer.Option(help="Accept a batch that differs much from the last one.")]
Workers = Annotated[int, typer.Option(min=1, max=64, help="Processes that answer; each loads the versions itself.")]
WindowHours = Annotated[float, typer.Option(min=0.01, help="How long after it was shown an event counts, hours.")]
AsOf = Annotated[
    datetime | None,
    typer.Option(help="As of this moment; default: now, for a synthetic world the last thing that happened."),
]
KeyName = Annotated[str, typer.Argument(help="What the request log calls it.")]
OperatorRole = Annotated[bool, typer.Option("--operator", help="It may operate too: publish, roll back.")]
Query = Annotated[str | None, typer.Argument(help="A query; without one, an interactive prompt.")]
Format = Annotated[str, typer.Option("--format", help="table, json, csv or parquet")]

# Commands without options of their own: module, function and what `--help` says.
PLAIN = {
    "ablate": ("ablate", "run", "Train the model without each of its parts; what each brings on the validation weeks."),
    "quality": ("quality", "run", "Say how good the data are. Exit code 0: good, 3: warnings, 4: critical, refused."),
    "rollback": ("rollback", "run", "Make the previous version live again."),
    "replay": ("replay", "run", "Fold events of the log that the online store does not count yet."),
    "up": ("services", "up", "Start the embedded online store."),
    "down": ("services", "down", "Stop the embedded online store; its data stay."),
    "status": ("status", "run", "Show what exists, how old it is and which version serves."),
    "pipeline": (
        "pipeline",
        "run",
        "Everything from the world to a published version; what is done is quick.",
    ),
}
