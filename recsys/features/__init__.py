"""Historical and online features: the only package that knows Feast and its layout of the online store."""

from recsys.features.live import LiveStates, Mark, Wanted
from recsys.features.store import FeatureStore, matrix

__all__ = ["FeatureStore", "LiveStates", "Mark", "Wanted", "matrix"]
