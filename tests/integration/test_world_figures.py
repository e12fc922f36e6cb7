"""The default world at full size keeps to its figures: what later stages are measured on is worth learning from."""

from recsys.world import WorldConfig, generate
from recsys.world.figures import RANGES
from recsys.world.page import page


def test_the_default_world_keeps_to_its_figures(tmp_path):
    config = WorldConfig()
    made = generate(config, tmp_path)
    assert (config.preset, made.figures["users"], made.figures["places"]) == ("city", 10_000, 10_000)
    off = {
        name: (made.figures[name], low, high)
        for name, _, low, high in RANGES
        if not low <= made.figures[name] <= (high if high is not None else float("inf"))
    }
    assert not off, "figure: (value, lowest, highest)"
    assert 0.07 <= made.figures["away_share"] <= 0.13, "a tenth of the interactions happens while travelling"
    rows = made.picture["table"]
    assert len(rows) == len(RANGES)
    assert all(row["ok"] and row["low"] is not None for row in rows)
    shown = page(config.source(), made.figures, made.picture)
    assert all(row["figure"] in shown for row in rows)
