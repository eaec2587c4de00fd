"""What tables and sentences of README.md and docs/ say of names, figures and defaults is what the code has."""

from __future__ import annotations

import re

import pytest
import yaml

from infra.backfill_spec import BackfillSpec
from infra.parts import UpgradeStrategy
from infra.policy import Policy
from infra.policy_rules import Violation
from infra.spec import KubeRayClusterSpec, parse_spec
from infra.support import MATRIX
from runner.backfill import coroutines, isolated, retries, timeouts
from runner.functions import udf
from stacks.settings import Settings
from tests.docs.blocks import ROOT, blocks_of

README = (ROOT / "README.md").read_text()
CLUSTERS, BACKFILLS, FUNCTIONS, POLICY = (
    (ROOT / "docs" / f"{name}.md").read_text() for name in ("clusters", "backfills", "functions", "policy")
)


def table(text: str, header: str) -> list[list[str]]:
    """The cells of the table whose first column has a header."""
    found = re.search(rf"^\| {re.escape(header)} \|.*\n\| ---.*\n((?:\|.*\n?)+)", text, flags=re.M)
    assert found is not None, header
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in found[1].strip().splitlines()]


def names(text: str, header: str) -> set[str]:
    """All names in code of a table's first column."""
    return {name for row in table(text, header) for name in re.findall(r"\w+", row[0])}


def test_the_support_matrix() -> None:
    assert table(CLUSTERS, "field of the RayCluster") == [[f"spec.{row.path}", row.since, row.gate or ""] for row in MATRIX]


def test_every_key_of_a_stack() -> None:
    assert names(CLUSTERS, "`infill:` key") == set(Settings.model_fields)


def test_every_upgrade_strategy() -> None:
    assert [row[0].split()[0].strip("`") for row in table(CLUSTERS, "`upgrade_strategy`")] == [
        strategy.value for strategy in UpgradeStrategy
    ]


def test_every_option_of_a_function() -> None:
    assert names(README, "option of `@udf`") == set(udf.__kwdefaults__ or {})


def test_the_file_and_the_builders_of_the_page_on_clusters() -> None:
    first = {language: next(b.text for b in blocks_of(CLUSTERS) if b.language == language) for language in ("yaml", "python")}
    file = parse_spec(yaml.safe_load(first["yaml"]))
    made: dict[str, object] = {}
    exec(first["python"], made)
    built = made["spec"]
    assert isinstance(file, KubeRayClusterSpec)
    assert isinstance(built, KubeRayClusterSpec)
    assert [(group.name, group.min_replicas, group.max_replicas) for group in file.worker_groups] == [("cpu", 1, 20), ("gpu", 0, 8)]
    assert file.warnings() == []
    assert (built.name, built.namespace, [group.max_replicas for group in built.worker_groups]) == ("images", "ray", [20, 8])


def test_every_field_of_a_declared_backfill_and_its_default() -> None:
    rows = table(BACKFILLS, "field")
    fields = BackfillSpec.model_fields
    assert sorted(name for row in rows for name in re.findall(r"\w+", row[0])) == sorted(fields)
    said = {row[0]: row[1] for row in rows}
    assert said["history_seconds"] == str(fields["history_seconds"].default)
    assert said["schedule`, `time_zone"] == f"none, {fields['time_zone'].default}"
    for name in ("concurrency_policy", "on_exit", "code"):
        assert said[name] == fields[name].default


def test_every_rule_of_a_policy() -> None:
    (file,) = [yaml.safe_load(block.text) for block in blocks_of(POLICY) if block.language == "yaml"]
    assert set(file) == names(POLICY, "rule") == set(Policy.model_fields)


def test_the_refusal_of_a_policy() -> None:
    (said,) = [block.text.strip() for block in blocks_of(POLICY) if block.language == "text"]
    refused = Violation("max_replicas", "worker_groups.gpu.max_replicas", 100, "is more than 50")
    assert said == f"cluster 'images': {refused}"


@pytest.mark.parametrize(
    "said",
    [
        f"between 1 and 2 times `timeout` and {timeouts.GRACE_SECONDS:g} s",
        f"More than {isolated.MAX_KILLING_ROWS} such rows",
        f"wait {retries.FIRST_WAIT_S:g} s, {retries.FIRST_WAIT_S * 2:g} s, {retries.FIRST_WAIT_S * 4:g} s ... at most "
        f"{retries.LONGEST_WAIT_S:g} s",
        {600.0: "up to ten minutes"}[retries.LONGEST_RETRY_AFTER_S],
    ],
)
def test_the_figures_of_the_page_on_functions(said: str) -> None:
    assert said in " ".join(FUNCTIONS.split())


def test_the_default_concurrency() -> None:
    assert f"| `concurrency`, `rate_limit` | {coroutines.DEFAULT_CONCURRENCY}, none |" in README
