"""What clusters cost by a price table, and what a table is refused for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from infra.costs import ClusterCost, GroupCost, cluster_cost
from infra.errors import BadSpec
from infra.files import read_folder
from infra.prices import PriceTable, find_prices, json_schema, read_prices
from infra.spec import KubeRayClusterSpec
from runner.cli.main import app
from stacks.new import write_project

REPOSITORY = Path(__file__).parents[2]
TABLE: dict[str, Any] = {"source": "a test", "per_cpu": 0.1, "per_gib": 0.01, "per_gpu": {"nvidia.com/gpu": 2, "NVIDIA-L4": 1}}
HEAD = {"cpus": 2, "memory": "4Gi"}


def priced(*groups: dict[str, Any], table: dict[str, Any] | None = None, **spec: Any) -> ClusterCost:
    cluster = {"name": "c", "head_group": HEAD, "worker_groups": list(groups), **spec}
    return cluster_cost(KubeRayClusterSpec.parse(cluster), PriceTable.parse(table or TABLE))


def per_pod(group: dict[str, Any], table: dict[str, Any] | None = None) -> float:
    return priced(group, table=table).groups[1].per_pod


def test_pods_cost_what_they_reserve() -> None:
    made = priced({"cpus": 8, "memory": "32Gi", "requests": {"cpus": 4}, "min_replicas": 1, "max_replicas": 3})
    head, workers = made.groups
    assert head.per_pod == pytest.approx(2.5 * 0.1 + 4.5 * 0.01)  # with the autoscaler beside it
    assert workers.per_pod == pytest.approx(4 * 0.1 + 32 * 0.01)
    assert (head.pods_min, head.pods_max, workers.pods_min, workers.pods_max) == (1, 1, 1, 3)
    assert made.per_hour_min == pytest.approx(head.per_pod + workers.per_pod)
    assert made.per_hour_max == pytest.approx(head.per_pod + 3 * workers.per_pod)
    assert made.per_hour_now is None


def test_accelerators_are_priced_by_model_before_resource() -> None:
    shape = {"kind": "gpu", "cpus": 1, "memory": "10Gi"}
    assert per_pod({**shape, "gpus": 2}) == pytest.approx(0.1 + 0.1 + 4)
    assert per_pod({**shape, "node_selector": {"nvidia.com/gpu.product": "NVIDIA-L4"}}) == pytest.approx(0.1 + 0.1 + 1)


def test_a_pod_pays_its_largest_share_of_a_node() -> None:
    node = {"per_hour": 8, "cpus": 16, "memory": "64Gi", "gpus": 4}
    table = {**TABLE, "node_types": {"g.large": node, "spot": {"per_hour": 1.5, "labels": {"capacity": "spot"}}}}
    on = {"node_selector": {"node.kubernetes.io/instance-type": "g.large"}}
    assert per_pod({**on, "cpus": 4, "memory": "8Gi"}, table) == pytest.approx(2)
    assert per_pod({**on, "cpus": 2, "memory": "48Gi"}, table) == pytest.approx(6)
    assert per_pod({**on, "gpus": 2, "cpus": 2, "memory": "8Gi"}, table) == pytest.approx(4)
    assert per_pod({"node_selector": {"capacity": "spot"}, "cpus": 1, "memory": "1Gi"}, table) == 1.5  # the whole node


def test_the_node_type_with_the_most_labels_is_a_groups() -> None:
    types = {
        "spot": {"per_hour": 1, "labels": {"capacity": "spot"}},
        "spot-b": {"per_hour": 2, "labels": {"capacity": "spot", "zone": "b"}},
    }
    table = {**TABLE, "node_types": types}
    assert per_pod({"node_selector": {"capacity": "spot", "zone": "b"}}, table) == 2
    assert per_pod({"node_selector": {"capacity": "spot", "zone": "c"}}, table) == 1


def test_without_autoscaler_least_and_most_are_the_same() -> None:
    made = priced({"replicas": 3}, autoscaler={"enabled": False})
    assert (made.groups[1].pods_min, made.groups[1].pods_max) == (3, 3)
    assert made.groups[0].per_pod == pytest.approx(2 * 0.1 + 4 * 0.01)  # no autoscaler beside the head


def test_a_suspended_cluster_costs_nothing() -> None:
    assert priced({"min_replicas": 2}, suspend=True).per_hour_max == 0


def test_what_runs_now_and_hours() -> None:
    groups = (GroupCost("head", "cpu, memory", 0.5, 1, 1, 1), GroupCost("gpu", "g", 2.0, 0, 8, 3))
    made = ClusterCost(groups, "EUR")
    assert made.per_hour_now == 6.5
    assert made.of_hours({"head": 2, "gpu": 4.5}) == 10
    with pytest.raises(BadSpec, match=r"no group 'cpu'; it has head, gpu"):
        made.of_hours({"cpu": 1})


SELECTS_M7 = {"node_selector": {"node.kubernetes.io/instance-type": "m7.xlarge"}}
SELECTS_L40 = {"gpus": 1, "node_selector": {"cloud.google.com/gke-accelerator": "nvidia-l40"}}
SMALL = {"small": {"per_hour": 1, "cpus": 2, "memory": "8Gi", "labels": {"a": "b"}}}
ON_SMALL = {"node_selector": {"a": "b"}}


@pytest.mark.parametrize(
    ("group", "table", "said"),
    [
        (SELECTS_M7, {}, r"node_types: 'm7\.xlarge' is not in it.*add node_types"),
        (SELECTS_L40, {}, r"per_gpu: 'nvidia-l40' is not in it, and worker_groups\.gpu has 1 of it; add per_gpu"),
        ({"gpus": 1, "gpu_resource": "amd.com/gpu"}, {}, r"per_gpu: 'amd\.com/gpu' is not in it"),
        ({}, {"per_gib": None}, r"per_gib: it is not given, and no node type fits"),
        ({**ON_SMALL, "cpus": 4}, {"node_types": SMALL}, r"node_types\.small\.cpus: a node has less than a pod of"),
        ({**ON_SMALL, "cpus": 1, "gpus": 1}, {"node_types": SMALL}, r"node_types\.small\.gpus: it is 0"),
        (ON_SMALL, {"node_types": {**SMALL, "twin": SMALL["small"]}}, r"'small' and 'twin' fit worker_groups\.cpu alike"),
    ],
)  # fmt: skip
def test_a_table_without_the_price_is_refused(group: dict[str, Any], table: dict[str, Any], said: str) -> None:
    with pytest.raises(BadSpec, match=said):
        per_pod(group, {**TABLE, **table})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("currency: USD", r"prices\.yaml: source: Field required"),
        ("{source: x, per_cpu: -1}", r"per_cpu: .*greater than or equal to 0, not -1"),
        ("{source: x, per_cpu: .inf}", r"per_cpu: .*finite number"),
        ("{source: x, per_cpus: 1}", r"unknown key 'per_cpus'; did you mean 'per_cpu'\?"),
        ("{source: x, currency: dollars}", r"currency: .*not 'dollars'"),
        ("{source: x, node_types: {a: {per_hour: 1, cpus: 2}}}", r"node_types\.a: memory: cpus is given.*give both or neither"),
        ("{source: x, node_types: {a: {per_hour: 1, gpus: 2}}}", r"node_types\.a: gpus: a share of the node needs cpus and memory"),
        ("a: [", r"is not YAML"),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "prices.yaml").write_text(text)
    with pytest.raises(BadSpec, match=said):
        read_prices(tmp_path / "prices.yaml")


def test_a_new_project_has_prices_for_all_its_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    table = find_prices()
    assert table is not None
    assert "example" in table.source
    for spec in read_folder("clusters").values():
        assert isinstance(spec, KubeRayClusterSpec)
        assert cluster_cost(spec, table).per_hour_max > 0


def test_the_schema_takes_the_example_and_refuses_a_misspelling() -> None:
    schema = Draft202012Validator(json_schema())
    plain = read_prices(REPOSITORY / "stacks" / "prices.yaml").plain()
    assert schema.is_valid(plain)
    assert not schema.is_valid({**plain, "per_cpus": 1})


def test_the_command_says_what_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    (tmp_path / "c.yaml").write_text(
        "{name: c, head_group: {cpus: 2, memory: 4Gi}, worker_groups: [{cpus: 10, memory: 100Gi, max_replicas: 4}]}"
    )
    without = CliRunner().invoke(app, ["clusters", "cost", "c.yaml"])
    assert without.exit_code == 2
    assert "neither prices.yaml nor stacks/prices.yaml" in without.stderr
    (tmp_path / "prices.yaml").write_text("{source: our contract, date: 2026-02-03, currency: EUR, per_cpu: 0.1, per_gib: 0.01}")
    with_prices = CliRunner().invoke(app, ["clusters", "cost", "c.yaml"])
    assert with_prices.exit_code == 0
    head, workers, total = (line.split() for line in with_prices.stdout.splitlines()[1:])
    assert workers == ["cpu", "cpu,", "memory", "2.00", "0", "x", "=", "0.00", "4", "x", "=", "8.00", "unknown"]
    assert total == ["EUR", "an", "hour", "0.29", "8.29", "unknown"]
    assert head[3] == "0.29"
    assert "prices: our contract, 2026-02-03" in with_prices.stderr
    assert "now: unknown: no kubeconfig" in with_prices.stderr


def test_the_table_of_the_documentation() -> None:
    text = (REPOSITORY / "docs" / "operations.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.S)
    table = PriceTable.parse(yaml.safe_load(block))
    assert (table.currency, list(table.node_types)) == ("EUR", ["m7i.4xlarge", "spot"])
    named = {key for row in re.findall(r"^\| (`.*?`) \|", text, flags=re.M) for key in re.findall(r"`([a-z_]+)`", row)}
    assert set(PriceTable.model_fields) <= named
