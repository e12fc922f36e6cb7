"""docs/scaling.md: its tables are what the figures give, and no stage grows faster than it may."""

import pytest

from tests.scaling import BILLS, MOST, PAGE, STAGES, bill, exponent, load, moves, points, render, short, units


def test_the_page_is_what_the_figures_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(PAGE.read_text(encoding="utf-8"), load())


def test_an_exponent_is_that_of_the_power_law() -> None:
    assert exponent([(10.0, 3 * 10**1.3), (100.0, 3 * 100**1.3), (1e5, 3 * 1e5**1.3)]) == pytest.approx(1.3)
    assert exponent([(1.0, 5.0), (1000.0, 5.0)]) == pytest.approx(0)


@pytest.mark.parametrize("of", ["users", "interactions"])
@pytest.mark.parametrize("stage", STAGES)
def test_stages_grow_no_faster_than_they_may(stage: str, of: str) -> None:
    found = points(load()["runs"][-2:], stage, of)
    assert len(found) == 2
    assert exponent(found) <= MOST


def test_unit_costs_add_up_to_the_bill() -> None:
    said = load()
    u, rows = units(said), bill(said)
    assert rows[0][1:] == [f"{short(users)} users" for users in BILLS] == ["1 M users", "10 M users", "100 M users"]
    embed = next(row for row in rows if str(row[0]).startswith("everybody"))
    assert embed[3] == f"{1e8 * u['embed_us'] / 1e6 * 30 / 3600:,.0f}"
    store = next(row for row in rows if str(row[0]).startswith("online store"))
    assert store[1] == f"{2 * 1e6 * u['pairs a user'] * u['online_bytes'] / 1e9:,.0f}"
    a_month = [float(str(cell).strip("*").replace(",", "")) for cell in rows[-2][1:]]
    assert a_month == sorted(a_month)
    assert a_month[2] < 100 * a_month[0]  # training does not grow beyond its sample


def test_twice_the_machine_holds_twice_the_users() -> None:
    said = load()
    larger = {**said, "machine": {name: 2 * value for name, value in said["machine"].items()}}
    for before, after in zip(moves(said)[1:-1], moves(larger)[1:-1], strict=True):
        assert before[1] != after[1], before[0]


@pytest.mark.parametrize(
    ("n", "said"), [(1e6, "1 M"), (1.25e6, "1.2 M"), (1e8, "100 M"), (12_000, "12,000"), (5.4e9, "5.4 G"), (7, "7")]
)
def test_large_numbers_are_short(n: float, said: str) -> None:
    assert short(n) == said
