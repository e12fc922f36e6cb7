"""What is kept of candidates, and how often it was of use."""

import numpy as np

from recsys.features.cache import FeatureCache

SECOND, WIDTH = 1_000_000, 4


def test_what_was_at_hand_and_what_had_to_be_read_are_counted():
    cache = FeatureCache(1.0, WIDTH)
    ids = np.array([3, 1, 2])
    features, missing, age_s = cache.look_up(ids, SECOND)
    assert (cache.hits, cache.misses, missing.tolist(), age_s) == (0, 3, [0, 1, 2], 0.0)
    cache.keep(ids, features + 1, SECOND)
    found, missing, age_s = cache.look_up(np.array([1, 2, 9]), SECOND + SECOND // 2)
    assert (cache.hits, cache.misses, missing.tolist(), age_s) == (2, 4, [2], 0.5)
    assert (found[:2] == 1).all()
    _, missing, _ = cache.look_up(ids, 3 * SECOND)  # too old by now
    assert (cache.hits, cache.misses, len(missing)) == (2, 7, 3)


def test_without_a_cache_everything_is_read():
    cache = FeatureCache(0.0, WIDTH)
    ids = np.array([1, 2])
    for times in (1, 2):
        features, missing, _ = cache.look_up(ids, SECOND)
        cache.keep(ids, features, SECOND)
        assert (cache.hits, cache.misses, len(missing)) == (0, 2 * times, 2)
