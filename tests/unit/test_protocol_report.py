"""Intervals against loops over resamples, and groups of users by hand."""

import numpy as np
import pytest

from jobs.protocol_table import differences_table, methods_table
from recsys.errors import DataError
from recsys.training.bootstrap import interval, resampled_means
from recsys.training.measure import Measured
from recsys.training.protocol_report import activity_groups, protocol_report


def measured(seed: int, *, shift: float = 0.0, n: int = 300, users=None) -> Measured:
    rng = np.random.default_rng(seed)
    auc = rng.random(n)
    auc[::7] = np.nan
    by_user = {"recall": rng.random(n) + shift, "ndcg": rng.random(n) + shift, "auc": auc}
    users = np.arange(n) if users is None else users
    return Measured(users, np.arange(n) // 10, by_user, np.array([1.0, 0.5, 0.0]))


def test_resampled_means_equal_a_loop_that_draws_users(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values = rng.random((9, 3))
    values[2:5, 2] = np.nan
    found = resampled_means(values, samples=40, seed=3)
    again = np.random.Generator(np.random.Philox(3))
    for row in found:
        drawn = again.integers(0, 9, 9)
        np.testing.assert_allclose(row, np.nanmean(values[drawn], axis=0))
    monkeypatch.setattr("recsys.training.bootstrap._DRAWS", 27)
    np.testing.assert_allclose(resampled_means(values, samples=40, seed=3), found)
    low, high = interval(found)
    np.testing.assert_allclose([low, high], np.quantile(found, [0.025, 0.975], axis=0))


def test_intervals_have_the_width_that_theory_gives() -> None:
    values = np.random.default_rng(1).normal(0.3, 1.0, (2500, 1))
    (low,), (high,) = interval(resampled_means(values))
    assert high - low == pytest.approx(2 * 1.96 / 50, rel=0.1)
    assert low < values.mean() < high


def test_a_model_is_compared_with_every_other_method_on_the_same_users() -> None:
    base, other = measured(0), measured(1)
    values = {name: v + 0.02 for name, v in base.by_user.items()}
    model = Measured(base.users, base.activity, values, base.covered)
    report = protocol_report({"one": base, "two": other, "model": model})
    assert report.users == 300
    assert list(report.model_minus) == ["one", "two"]
    for metric in ("recall", "ndcg", "auc"):
        row = report.model_minus["one"][metric]
        assert [row["mean"], row["low"], row["high"]] == pytest.approx([0.02] * 3)  # paired: no noise is left
        assert row["ratio"] == pytest.approx(report.rows["model"][metric] / report.rows["one"][metric])
        difference = values[metric] - other.by_user[metric]
        low, high = interval(resampled_means(difference[:, None]))
        two = report.model_minus["two"][metric]
        assert two["mean"] == pytest.approx(np.nanmean(difference))
        assert [two["low"], two["high"]] == pytest.approx([low[0], high[0]])
        ends = report.intervals["model"][metric]
        assert ends[0] < report.rows["model"][metric] < ends[1]
    assert report.rows["one"]["coverage"] == 0.5
    assert "coverage" not in report.intervals["one"]
    assert protocol_report({"one": base}).model_minus == {}
    assert report.to_dict()["intervals"]["one"]["ndcg"] == report.intervals["one"]["ndcg"]


def test_a_baseline_that_finds_nothing_has_no_ratio() -> None:
    zero = Measured(np.arange(4), np.arange(4), {"recall": np.zeros(4)}, np.zeros(2))
    one = Measured(np.arange(4), np.arange(4), {"recall": np.ones(4)}, np.zeros(2))
    report = protocol_report({"zero": zero, "model": one})
    assert report.model_minus["zero"]["recall"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "ratio": None}


def test_groups_by_activity_are_quartiles_that_keep_equals_together() -> None:
    groups = activity_groups(np.array([9, 1, 1, 1, 1, 2, 3, 4]), 4)
    assert [np.flatnonzero(g).tolist() for g in groups] == [[1, 2, 3, 4], [5, 6], [0, 7]]
    assert [g.sum() for g in activity_groups(np.zeros(5, dtype=np.int64), 4)] == [5]
    found = protocol_report({"one": measured(0)})
    assert [(g["low"], g["high"], g["users"]) for g in found.activity] == [
        (0, 7, 80),
        (8, 14, 70),
        (15, 22, 80),
        (23, 29, 70),
    ]
    assert found.activity[0]["rows"]["one"]["ndcg"] == pytest.approx(measured(0).ndcg[:80].mean())
    assert "coverage" not in found.activity[0]["rows"]["one"]


def test_other_users_and_no_users_are_refused() -> None:
    with pytest.raises(DataError, match="the same users"):
        protocol_report({"one": measured(0), "two": measured(1, users=np.arange(1, 301))})
    for nothing in ({}, {"one": measured(0, n=0)}):
        with pytest.raises(DataError, match="nothing to measure"):
            protocol_report(nothing)


def test_the_tables_say_means_intervals_and_ratios() -> None:
    report = protocol_report({"one": measured(0), "model": measured(0, shift=0.5)})
    shown = methods_table("title", report)
    assert [str(c.header) for c in shown.columns] == ["method", "recall@10", "ndcg@10", "auc", "coverage"]
    recall = next(iter(shown.columns[1].cells))
    low, high = report.intervals["one"]["recall"]
    said = f"{report.rows['one']['recall']:.4f}\n[dim]{low:.3f}–{high:.3f}[/]"
    assert recall == said.replace("0.", ".")
    compared = differences_table(report)
    assert compared is not None
    cell = next(iter(compared.columns[1].cells))
    assert cell.startswith("+0.5000  [dim]+0.5000 … +0.5000[/]  × 1.9")
    assert differences_table(protocol_report({"one": measured(0)})) is None
