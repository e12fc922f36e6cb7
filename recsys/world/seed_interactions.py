"""Interactions of preset `seed`: the formulas of the seed's section 7.4, as they stand, a block of users at once."""

from typing import Final

import numpy as np

from recsys.world.config import WorldConfig
from recsys.world.interactions import DAY_US, HOUR_US, Events, in_order
from recsys.world.scoring import City, Sampler, Tastes
from recsys.world.streams import Stream, stream
from recsys.world.users import Users

_INTERACTIONS_PER_USER: Final = (50, 500)
_FEW_PLACES: Final = 20  # with fewer in the home city, every place of the world is a candidate


def block_events(
    config: WorldConfig, users: Users, cities: list[City], everywhere: City, block: int, start: int,
    stop: int,
) -> Events:  # fmt: skip
    """All interactions of users start to stop - 1.

    Args:
        cities: the places of each city.
        everywhere: all places, as one city: candidates of those who travel (a tenth of the users).
        block: number of the block, which keys its random stream.
    """
    numbers = config.numbers
    rng = stream(config.seed, Stream.INTERACTIONS, block)
    who = np.arange(start, stop)
    behavior = users.behavior[who].astype(np.float64)
    raw = (behavior[:, 0] * config.weeks * behavior[:, 1] * numbers.views_scale).astype(np.int64)
    count = np.clip(raw, *_INTERACTIONS_PER_USER)
    few = np.array([len(c.ids) < _FEW_PLACES for c in cities])
    travels = (rng.random(len(who)) >= 1.0 - numbers.travel) | few[users.city[who]]
    user = np.repeat(who, count)
    place, score = np.full(len(user), -1), np.zeros(len(user))
    pools = [*cities, everywhere]
    pool_of = np.where(travels, len(cities), users.city[who])
    for p in np.unique(pool_of):
        pool, chosen = pools[p], np.flatnonzero(pool_of == p)
        # The seed compares neighbourhood numbers across cities too; kept.
        scores = pool.taste(Tastes.of(config, users, who[chosen], 0), numbers) + pool.draw
        scores = np.maximum(scores + pool.likings(config, who[chosen]), 0.0)
        sampler = Sampler(scores / numbers.temperature, pool, slot_weight=0.0)
        row_of = np.full(len(who), -1)
        row_of[chosen] = np.arange(len(chosen))
        at = np.flatnonzero(np.isin(user - start, chosen))
        row = row_of[user[at] - start]
        found = sampler.draw(rng, row, np.zeros(len(at), dtype=np.int64))
        place[at], score[at] = pool.ids[found], scores[row, found]
    n = len(user)
    action = np.minimum(0.95, score * 2.0)
    events = Events(
        user=user,
        place=place,
        moment=config.start_us + rng.integers(0, config.weeks * 7, n) * DAY_US + rng.integers(0, 24, n) * HOUR_US,
        dwell=np.clip(30.0 + score * 200.0 + rng.exponential(50.0, n), 5.0, 600.0).astype(np.float32),
        likes=(rng.random(n) < action * 0.7).astype(np.int32),
        saves=(rng.random(n) < action * 0.4).astype(np.int32),
        shares=(rng.random(n) < action * 0.2).astype(np.int32),
        attended=rng.random(n) < action * 0.1,
    )
    return in_order(events)
