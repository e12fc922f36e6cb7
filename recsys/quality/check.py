"""A suite judged by Great Expectations, and its Data Docs (the only Great Expectations import).

Checks on lists and maps run on scalars that the lake derives first. Great Expectations takes seconds to import, so
it is imported when a check begins, or beside other work (`warm_up`).
"""

import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from html import escape
from threading import Thread
from typing import Any, Final

import numpy as np
import pyarrow as pa

from recsys.errors import DataError
from recsys.quality.suite import N_EXAMPLES, Expectation, Suite, Verdict


def warm_up() -> None:
    """Begin to import what `check` needs, beside whatever the caller lets DuckDB do meanwhile."""

    def load() -> None:
        with _imported():
            import great_expectations.expectations  # noqa: F401

    Thread(target=load, name="great_expectations", daemon=True).start()


def check(frames: Iterable[pa.Table], suite: Suite) -> Verdict:
    """Judge every row by every expectation.

    Args:
        frames: parts of one table of scalars as `Suite.sql` makes it; memory grows with the largest part only.
        suite: the rules.

    Returns:
        The verdict.

    Raises:
        DataError: an expectation could not be evaluated (a column is missing, values cannot be compared).
    """
    rows = 0
    failed = {e.name: 0 for e in suite.expectations}
    examples: dict[str, list[tuple[int, str]]] = {}
    rejected = [pa.table({"row": pa.array([], pa.int64()), "reason": pa.array([], pa.string())})]
    for frame in frames:
        numbers = frame["row"].to_numpy()
        rows += len(numbers)
        reasons = np.full(len(numbers), "", dtype=object)
        for expectation, broken in _broken(frame, suite):
            found = _found(frame, expectation, broken)
            failed[expectation.name] += len(broken)
            known = examples.setdefault(expectation.name, [])
            known += list(zip(numbers[broken].tolist(), found, strict=False))[: N_EXAMPLES - len(known)]
            if expectation.severity != "critical":
                continue
            texts = np.array([f"{expectation.name} (got {value})" for value in found], dtype=object)
            reasons[broken] = np.where(reasons[broken] == "", texts, reasons[broken] + "; " + texts)
        bad = np.flatnonzero(reasons != "")
        rejected.append(pa.table({"row": numbers[bad], "reason": pa.array(reasons[bad], pa.string())}))
    return Verdict(suite, rows, pa.concat_tables(rejected).sort_by("row"), failed, examples)


def data_docs(verdict: Verdict, batch: str, at: datetime, home: str) -> str:
    """Great Expectations' own page of a verdict, as one HTML document that asks no network for anything.

    Its renderer links style sheets and scripts from content networks; those go, and a style sheet of ours gives the
    classes that it uses a look. What came with the data is escaped.

    Args:
        verdict: what was found.
        batch: the name of the batch, shown as the run's.
        at: when it was judged.
        home: what its links lead to.
    """
    with _imported():
        import great_expectations as gx
        from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
        from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
        from great_expectations.render.renderer import ValidationResultsPageRenderer
        from great_expectations.render.view import DefaultJinjaPageView
    _context()  # the renderer asks for one
    results = []
    for e in verdict.suite.expectations:
        broken = verdict.failed[e.name]
        percent = 100 * broken / verdict.rows if verdict.rows else 0.0
        found = [f"row {row}: {_harmless(got)}" for row, got in verdict.examples.get(e.name, ())]
        results.append(
            ExpectationValidationResult(
                success=not broken,
                expectation_config=ExpectationConfiguration(
                    type=e.type, kwargs=dict(e.kwargs), severity=e.severity, meta={"notes": f"{e.name}. {e.why}"}
                ),
                result={
                    "element_count": verdict.rows,
                    "unexpected_count": broken,
                    "unexpected_percent": percent,
                    "unexpected_percent_total": percent,
                    "partial_unexpected_list": found,
                },
                exception_info={"raised_exception": False, "exception_message": None, "exception_traceback": None},
            )
        )
    held = sum(result.success for result in results)
    name = verdict.suite.table.name
    rendered = ValidationResultsPageRenderer(run_info_at_end=False).render(
        ExpectationSuiteValidationResult(
            success=held == len(results),
            results=results,
            suite_name=name,
            statistics={
                "evaluated_expectations": len(results),
                "successful_expectations": held,
                "unsuccessful_expectations": len(results) - held,
                "success_percent": 100 * held / len(results),
            },
            meta={
                "great_expectations_version": gx.__version__,
                "run_id": {"run_name": batch, "run_time": at.isoformat()},
                "active_batch_definition": {"data_asset_name": name},
            },
        )
    )
    html: str = _ELSEWHERE.sub(f'href="{escape(home)}"', DefaultJinjaPageView().render(rendered))
    for away in _NETWORK:
        html = away.sub("", html)
    return html.replace("</head>", f"<style>{_STYLE}</style></head>", 1)


def _broken(frame: pa.Table, suite: Suite) -> Iterator[tuple[Expectation, "np.ndarray[Any, Any]"]]:
    """Each broken expectation with the positions, ascending, of the rows that broke it."""
    with _imported():
        import great_expectations as gx
        import great_expectations.expectations as gxe

    asset = _context().data_sources.add_pandas("landing").add_dataframe_asset(suite.table.name)
    # an unnamed range as index: what is unexpected is then listed by position
    batch = asset.add_batch_definition_whole_dataframe("part").get_batch({"dataframe": frame.to_pandas()})
    rules = {e.name: e for e in suite.expectations}
    kinds = {e.type: getattr(gxe, "".join(word.capitalize() for word in e.type.split("_"))) for e in rules.values()}
    results = batch.validate(
        gx.ExpectationSuite(
            suite.table.name,
            expectations=[
                kinds[e.type](**e.kwargs, meta={"name": e.name}, severity=e.severity) for e in rules.values()
            ],
        ),
        result_format={
            "result_format": "COMPLETE",
            "exclude_unexpected_values": True,
            "return_unexpected_index_query": False,
        },
    )
    for result in results.results:
        name = result.expectation_config.meta["name"]
        if result.success:
            continue
        if "unexpected_index_list" not in result.result:
            raise DataError(f"{suite.table.name}: {name!r} could not be checked (got {result.exception_info})")
        yield rules[name], np.sort(np.asarray(result.result["unexpected_index_list"], dtype=np.int64))


def _found(frame: pa.Table, expectation: Expectation, positions: "np.ndarray[Any, Any]") -> list[str]:
    rows = frame.select(list(expectation.shows)).take(positions)
    columns = [[_text(value) for value in column.to_pylist()] for column in rows.columns]
    return [", ".join(values) for values in zip(*columns, strict=True)]


def _text(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, float):
        return f"{value:.7g}"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else f"{value[:77]}...")
    return str(value)


def _harmless(text: str) -> str:
    # its templates substitute $names and print what they are given as it is
    return escape(text).replace("$", "&#36;")


def _context() -> Any:
    """An ephemeral context that keeps nothing, not even the temporary folder for a site that ephemeral ones make."""
    import great_expectations as gx
    from great_expectations.data_context.types import base

    stores = base.InMemoryStoreBackendDefaults(init_temp_docs_sites=False)
    quiet = base.ProgressBarsConfig(globally=False)
    config = base.DataContextConfig(store_backend_defaults=stores, analytics_enabled=False, progress_bars=quiet)
    return gx.get_context(mode="ephemeral", project_config=config)


@contextmanager
def _imported() -> Iterator[None]:
    # It imports Spark Connect where pyspark is installed; that ends the process, without an error, where a part of it
    # is missing and the main module is no file
    sys.modules.setdefault("pyspark.sql.connect", None)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        # Great Expectations 1.24 imports two modules that Python 3.11 deprecates
        warnings.filterwarnings("ignore", r"module 'sre_(constants|parse)' is deprecated", DeprecationWarning)
        yield


_NETWORK: Final = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"<script.*?</script>",
        r"<link[^>]*>",
        r"<nav class=\"navbar navbar-expand.*?</nav>\s*</div>\s*</nav>",
        # buttons that do nothing without the scripts
        r"<div class=\"card mb-3\">\s*<div class=\"card-header p-2\">\s*<strong>Actions.*?(?=<div class=\"card d-md)",
        r"<footer.*?</footer>",
        r"url\('https[^']*'\)",
    )
)
_ELSEWHERE: Final = re.compile(r'href="\.\./[^"]*"')  # its site has folders, ours is one page a table
_STYLE: Final = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:80rem;padding:1.5rem}
.row{display:flex;flex-wrap:wrap;gap:1rem}
.ge-section>.row{display:block}.col-md-10{flex:1 1 40rem;min-width:0}.col-lg-2{flex:0 1 14rem}
.card,.alert{border:1px solid #8884;border-radius:.5rem;padding:.5rem .8rem;margin:.5rem 0}
ul.nav{list-style:none;padding:0}.container{padding-top:0}h5,h6{margin:.2rem 0;font-size:1rem}
table{border-collapse:collapse;width:100%}td,th{border-top:1px solid #8884;padding:.35rem .6rem;text-align:left;
vertical-align:top}.badge{background:#8883;border-radius:.3rem;padding:0 .3rem}
.text-danger,.fa-times,.fa-exclamation-triangle{color:#c33}.text-success,.fa-check-circle{color:#283}
.fa-times::before{content:"✗"}.fa-check-circle::before{content:"✓"}.fa-exclamation-triangle::before{content:"!"}
a[data-toggle=collapse]{display:none}
"""
