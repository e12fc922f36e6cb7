"""The expected calibration error by hand."""

import pytest
import torch

from recsys.errors import ConfigError, DataError
from recsys.training.calibration import ReliabilityBin, expected_calibration_error, reliability

P = torch.tensor([0.05, 0.15, 0.15, 0.95, 1.0])
Y = torch.tensor([0, 1, 0, 1, 1])


def test_the_error_is_that_by_hand():
    # bins of a tenth: 0.05 → none of one; 0.15 → one of two; 0.95 and 1 → both
    by_hand = 1 / 5 * 0.05 + 2 / 5 * abs(0.15 - 0.5) + 2 / 5 * abs(0.975 - 1)
    assert expected_calibration_error(P, Y) == pytest.approx(by_hand, abs=1e-7)
    # in one bin: 0.46 said, three of five came true
    assert expected_calibration_error(P, Y.bool(), bins=1) == pytest.approx(abs(0.46 - 0.6), abs=1e-7)


def test_the_table_has_every_bin_that_holds_something_once():
    table = reliability(P, Y)
    assert [(b.low, b.high, b.count) for b in table] == [(0.0, 0.1, 1), (0.1, 0.2, 2), (0.9, 1.0, 2)]
    assert [b.outcome for b in table] == [0.0, 0.5, 1.0]
    assert [b.probability for b in table] == pytest.approx([0.05, 0.15, 0.975])
    assert reliability(torch.tensor([0.0, 1.0]), torch.tensor([0, 1]), bins=2) == [
        ReliabilityBin(0.0, 0.5, 1, 0.0, 0.0), ReliabilityBin(0.5, 1.0, 1, 1.0, 1.0),
    ]  # fmt: skip


def test_probabilities_that_are_drawn_by_themselves_are_calibrated_and_halved_ones_are_not():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(200_000, generator=generator)
    y = torch.rand(200_000, generator=generator) < p
    assert expected_calibration_error(p, y) < 0.01
    assert expected_calibration_error(p / 2, y) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    ("p", "y", "said"),
    [
        ([0.5, 1.5], [0, 1], r"\[0, 1\] \(got 1.5\)"),
        ([float("nan")], [1], r"got nan"),
        ([0.5], [2], r"0 or 1 \(got 2.0\)"),
        ([0.5, 0.5], [1], r"one length \(got \[2\] and \[1\]\)"),
        ([], [], r"nothing|no probability"),
    ],
)
def test_what_is_no_probability_or_no_outcome_is_refused(p, y, said):
    with pytest.raises(DataError, match=said):
        expected_calibration_error(torch.tensor(p), torch.tensor(y))


def test_there_is_at_least_one_bin():
    with pytest.raises(ConfigError, match=r"at least 1 \(got 0\)"):
        reliability(P, Y, bins=0)
