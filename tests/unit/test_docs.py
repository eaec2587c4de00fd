"""docs/clusters.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from infra.parts import UpgradeStrategy
from infra.spec import KubeRayClusterSpec, parse_spec
from infra.support import MATRIX
from stacks.settings import Settings

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "clusters.md").read_text()


def _table(header: str) -> list[list[str]]:
    found = re.search(rf"^\| {re.escape(header)} \|.*\n\| ---.*\n((?:\|.*\n?)+)", TEXT, flags=re.M)
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
