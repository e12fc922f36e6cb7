"""Historical and online features: the only package that knows Feast and its layout of the online store."""

from recsys.features.lean import lean_import

with lean_import():
    import feast  # noqa: F401

from recsys.features.format import matrix
from recsys.features.live import LiveStates, Mark, Wanted, last_of_each
from recsys.features.store import FeatureStore

__all__ = ["FeatureStore", "LiveStates", "Mark", "Wanted", "last_of_each", "matrix"]
