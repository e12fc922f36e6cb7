"""Candidate sources: simple methods as of a moment, whose answers are candidates and inputs of the heads."""

from recsys.sources.places import NEAR, PLACE_SIGNALS, PLACE_SOURCES, SOURCES, Memory, PlaceSources, Said

__all__ = ["NEAR", "PLACE_SIGNALS", "PLACE_SOURCES", "SOURCES", "Memory", "PlaceSources", "Said"]
