"""What a suite says and what it found, as plain data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import pyarrow as pa

from recsys.schemas import Table

Severity = Literal["ok", "warning", "critical"]
SEVERITIES: Final[tuple[Severity, ...]] = ("ok", "warning", "critical")
N_EXAMPLES: Final = 5


def worst(severities: Iterable[Severity]) -> Severity:
    """The gravest of several; "ok" of none."""
    return max(severities, key=SEVERITIES.index, default="ok")


@dataclass(frozen=True)
class Expectation:
    """One rule of a table.

    Attributes:
        name: what holds, in words; a rejected row's reason begins with it. Unique within its suite.
        type: Great Expectations type, as `expect_column_values_to_be_between`; one that judges row by row.
        kwargs: its arguments.
        why: why the rule exists, for the reader of the report.
        columns: column of the checked frame → SQL over `landing` and the lake that makes it; all scalar.
        shows: the columns whose values tell what was found instead.
        severity: "critical": a row that breaks it is rejected; "warning": it is kept, counted and shown.
    """

    name: str
    type: str
    kwargs: Mapping[str, Any]
    why: str
    columns: Mapping[str, str]
    shows: tuple[str, ...]
    severity: Severity = "critical"


@dataclass(frozen=True)
class Suite:
    """Every rule of one table.

    Attributes:
        table: what it judges.
        expectations: the rules.
        warn_above: share of its rows in [0, 1]; rejecting more is a warning.
        stop_above: rejecting more is critical: nothing of the batch is accepted.
    """

    table: Table
    expectations: tuple[Expectation, ...]
    warn_above: float = 0.01
    stop_above: float = 0.2

    @property
    def sql(self) -> str:
        """The query that makes the frame to check: `row`, the row's number in its file, and the scalars."""
        columns = {name: sql for e in self.expectations for name, sql in e.columns.items()}
        scalars = ", ".join(f'{sql} AS "{name}"' for name, sql in columns.items())
        return f"SELECT file_row_number AS row, {scalars} FROM landing"


@dataclass(frozen=True)
class Verdict:
    """What a suite found.

    Attributes:
        suite: the rules.
        rows: rows judged.
        rejected: columns `row` (int64, ascending) and `reason` (string: every broken critical rule and what was found,
            "; ").
        failed: name of every expectation → rows that broke it.
        examples: name of a broken expectation → up to `N_EXAMPLES` of (row, what was found).
    """

    suite: Suite
    rows: int
    rejected: pa.Table
    failed: Mapping[str, int]
    examples: Mapping[str, list[tuple[int, str]]]

    @property
    def accepted(self) -> int:
        """Rows that broke no critical rule."""
        return self.rows - int(self.rejected.num_rows)

    @property
    def reasons(self) -> dict[str, int]:
        """The broken critical rules, most frequent first."""
        return self._broken("critical")

    @property
    def warnings(self) -> dict[str, int]:
        """The broken rules that only warn, most frequent first."""
        return self._broken("warning")

    @property
    def severity(self) -> Severity:
        """How bad it is, by the suite's thresholds."""
        share = (self.rows - self.accepted) / self.rows if self.rows else 0.0
        if share > self.suite.stop_above:
            return "critical"
        return "warning" if share > self.suite.warn_above or self.warnings else "ok"

    def figures(self) -> dict[str, Any]:
        """The verdict as JSON values, for a report and its page."""
        return {
            "about": self.suite.table.about,
            "severity": self.severity,
            "rows": self.rows,
            "accepted": self.accepted,
            "rejected": self.rows - self.accepted,
            "warn_above": self.suite.warn_above,
            "stop_above": self.suite.stop_above,
            "rules": [
                {
                    "name": e.name,
                    "why": e.why,
                    "severity": e.severity,
                    "call": f"{e.type}({', '.join(f'{k}={v}' for k, v in e.kwargs.items() if v is not None)})",
                    "broken": self.failed[e.name],
                    "examples": [list(example) for example in self.examples.get(e.name, ())],
                }
                for e in self.suite.expectations
            ],
        }

    def _broken(self, severity: Severity) -> dict[str, int]:
        broken = [(e.name, n) for e in self.suite.expectations if (n := self.failed[e.name]) and e.severity == severity]
        return dict(sorted(broken, key=lambda item: -item[1]))
