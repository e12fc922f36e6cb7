"""Cuts in time: windows touch, never overlap, and each label window starts where its graph ends."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from recsys.errors import DataError
from recsys.training.snapshots import split_weeks

START = datetime(2024, 1, 1, tzinfo=UTC)
WEEK = timedelta(weeks=1)


def test_twelve_weeks_give_five_to_train_one_to_validate_two_to_test():
    split = split_weeks(START, START + 12 * WEEK)
    assert [a for a, _ in split.train] == [START + n * WEEK for n in range(4, 9)]
    assert split.valid == (START + 9 * WEEK, START + 10 * WEEK)
    assert split.test == (START + 10 * WEEK, START + 12 * WEEK)


@pytest.mark.parametrize("weeks", [5, 6, 8, 13, 52])
def test_windows_touch_and_never_overlap(weeks: int):
    split = split_weeks(START, START + weeks * WEEK)
    windows = [*split.train, split.valid, split.test]
    assert split.train
    assert windows[-1][1] == split.end == START + weeks * WEEK
    for (_, earlier_end), (later_start, _) in pairwise(windows):
        assert earlier_end == later_start


def test_a_long_history_has_long_windows():
    split = split_weeks(START, START + 52 * WEEK)
    assert {b - a for a, b in (*split.train, split.valid)} == {5 * WEEK}
    assert split.valid[1] == split.test[0] == START + 44 * WEEK


def test_a_version_that_looks_back_keeps_nothing_for_a_test():
    split = split_weeks(START, START + 12 * WEEK, tested=False)
    assert split.test == (split.end, split.end)
    assert split.valid == (START + 11 * WEEK, START + 12 * WEEK)


def test_too_little_history_is_refused_with_what_was_found():
    with pytest.raises(DataError, match=r"five weeks .* \(got 4"):
        split_weeks(START, START + 4 * WEEK)
