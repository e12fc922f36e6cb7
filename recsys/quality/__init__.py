"""Rows and a suite of expectations → accepted, rejected with reasons, and how bad that is.

A suite is data (`expectations/`): each expectation says what Great Expectations shall check, on which columns, why, and
how much it matters.
"""

from recsys.quality.check import check, data_docs, warm_up
from recsys.quality.files import conform, split
from recsys.quality.suite import N_EXAMPLES, Expectation, Severity, Suite, Verdict, worst

__all__ = [
    "N_EXAMPLES", "Expectation", "Severity", "Suite", "Verdict", "check", "conform", "data_docs", "split", "warm_up",
    "worst",
]  # fmt: skip
