"""One suite a table and a feature view, each rule with its reason; the verdict on a batch; the page that shows it."""

from expectations.feature_views import VIEW_SUITES
from expectations.rules import SIZES_SQL, Bounds
from expectations.suites import SUITES

__all__ = ["SIZES_SQL", "SUITES", "VIEW_SUITES", "Bounds"]
