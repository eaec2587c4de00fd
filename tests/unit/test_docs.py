"""docs/clusters.md and docs/backfills.md say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from infra.backfill_spec import BackfillSpec
from infra.parts import UpgradeStrategy
from infra.spec import KubeRayClusterSpec, parse_spec
from infra.support import MATRIX
from stacks.settings import Settings

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "clusters.md").read_text()
BACKFILLS = (DOCS / "backfills.md").read_text()


def _table(header: str, text: str = TEXT) -> list[list[str]]:
    found = re.search(rf"^\| {re.escape(header)} \|.*\n\| ---.*\n((?:\|.*\n?)+)", text, flags=re.M)
    assert found is not None, header
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in found[1].strip().splitlines()]


def test_the_support_matrix() -> None:
    assert _table("field of the RayCluster") == [[f"spec.{row.path}", row.since, row.gate or ""] for row in MATRIX]


def test_every_key_of_a_stack() -> None:
    named = {key for row in _table("`infill:` key") for key in re.findall(r"\w+", row[0])}
    assert named == set(Settings.model_fields)


def test_every_upgrade_strategy() -> None:
    assert [row[0].split()[0].strip("`") for row in _table("`upgrade_strategy`")] == [
        strategy.value for strategy in UpgradeStrategy
    ]


def test_the_file_is_a_cluster() -> None:
    spec = parse_spec(yaml.safe_load(re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.S)[0]))
    assert isinstance(spec, KubeRayClusterSpec)
    assert [group.name for group in spec.worker_groups] == ["cpu", "gpu"]
    assert spec.warnings() == []


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)[:1])
def test_the_builders_make_that_cluster(block: str) -> None:
    made: dict[str, object] = {}
    exec(block, made)
    spec = made["spec"]
    assert isinstance(spec, KubeRayClusterSpec)
    assert (spec.name, spec.namespace, [group.max_replicas for group in spec.worker_groups]) == ("images", "ray", [20, 8])


def test_every_field_of_a_declared_backfill_and_its_default() -> None:
    rows = _table("field", BACKFILLS)
    named = [key for row in rows for key in re.findall(r"\w+", row[0])]
    assert sorted(named) == sorted(BackfillSpec.model_fields)
    said = {row[0]: row[1] for row in rows}
    fields = BackfillSpec.model_fields
    assert said["history_seconds"] == str(fields["history_seconds"].default)
    assert said["concurrency_policy"] == fields["concurrency_policy"].default
    assert said["on_exit"] == fields["on_exit"].default
    assert said["code"] == fields["code"].default
    assert said["schedule`, `time_zone"] == f"none, {fields['time_zone'].default}"


def test_the_file_is_a_declared_backfill() -> None:
    spec = BackfillSpec.parse(yaml.safe_load(re.findall(r"```yaml\n(.*?)```", BACKFILLS, flags=re.S)[0]))
    assert (spec.name, spec.schedule, list(spec.secret_options)) == ("captions", "0 3 * * *", ["aws_secret_access_key"])
