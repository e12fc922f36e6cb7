"""The synthetic city world: a population, its places and what happens between them, from one seed."""

from recsys.world.build import generate
from recsys.world.config import Parameters, WorldConfig

__all__ = ["Parameters", "WorldConfig", "generate"]
