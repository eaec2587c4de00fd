"""docs/watching.md names what there is."""

from __future__ import annotations

import re
from pathlib import Path

from runner.watch import settings, traces
from runner.watch.history import OUTCOMES
from runner.watch.metrics import CALLS, COUNTERS, GAUGES, TAGS

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "watching.md").read_text()


def test_every_metric() -> None:
    assert set(re.findall(r"`ray_(\w+)`", TEXT)) == {f"{name}_total" for name in COUNTERS} | set(GAUGES) | {CALLS}
    assert "the labels " + ", ".join(f"`{tag}`" for tag in TAGS[:-1]) in TEXT.replace("\n", " ")


def test_every_outcome_and_setting() -> None:
    table = TEXT.partition("| outcome | meaning |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| ([a-z ]+) \|", table, flags=re.M) == [name for name in OUTCOMES if name != "running"]
    for name in (settings.METRICS, settings.LOG, *traces.ENDPOINTS):
        assert f"`{name}" in TEXT
