"""Candidate sources: simple methods as of a moment, whose answers are candidates and inputs of the heads."""

from recsys.sources.fits import ASKED, PLACE_FITS, Stated, Traits, meets
from recsys.sources.fusion import Fusion
from recsys.sources.latent import LATENT_SIGNALS
from recsys.sources.people import PEOPLE_SIGNALS, PEOPLE_SOURCES, Friendly, Outings, PeopleSources
from recsys.sources.places import NEAR, PLACE_SIGNALS, PLACE_SOURCES, SOURCES, Memory, PlaceSources, Said

__all__ = [
    "ASKED", "LATENT_SIGNALS", "NEAR", "PEOPLE_SIGNALS", "PEOPLE_SOURCES", "PLACE_FITS", "PLACE_SIGNALS",
    "PLACE_SOURCES", "SOURCES", "Friendly", "Fusion", "Memory", "Outings", "PeopleSources", "PlaceSources", "Said",
    "Stated", "Traits", "meets",
]  # fmt: skip
