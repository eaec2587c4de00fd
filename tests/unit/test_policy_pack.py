"""The policy pack through Pulumi's own API for packs; tests/cluster runs it with the CLI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi_policy import ResourceValidationArgs
from pulumi_policy.proxy import UNKNOWN_STRING_VALUE, unknown_checking_proxy

from infra.body import ray_cluster_body
from infra.policy import Policy
from infra.policy_pack import policies, policy_pack
from infra.spec import KubeRayClusterSpec

RAY = "kubernetes:ray.io/v1:RayCluster"
SPEC = KubeRayClusterSpec(name="a", namespace="prod", ray_version="2.60.0", python_version="3.11", head_group={"cpus": 99})


def reported(policy: Policy, type_: str, props: dict[str, Any]) -> list[str]:
    """Name of the rule and what it says, as the engine would have it."""
    found = []
    for rule in policies(policy):
        args: Any = ResourceValidationArgs(type_, unknown_checking_proxy(props), f"urn::{type_}::a", "a", None, None)  # type: ignore[arg-type]
        rule.validate(args, lambda message, urn, name=rule.name: found.append(f"{name}: {message}"))  # type: ignore[misc]
    return found


def test_each_rule_is_a_policy_of_its_own() -> None:
    rules = {rule.name: rule.description for rule in policies(Policy())}
    assert set(rules) == {rule.replace("_", "-") for rule in Policy.model_fields} - {"max-time-to-live"}
    assert rules["max-gpus"] == "Most accelerators of a container, of each kind."


def test_a_cluster_of_any_program_is_held_to_the_rules() -> None:
    policy = Policy(namespaces=["ray"], max_cpus="64", public_address=False)
    place = "spec.headGroupSpec.template.spec.containers[ray-head].resources.limits.cpu"
    assert reported(policy, RAY, ray_cluster_body(SPEC)) == [
        "namespaces: a: metadata.namespace: 'prod' is none of ray (rule namespaces)",
        f"max-cpus: a: {place}: 99 is more than 64 (rule max_cpus)",
    ]


def test_numbers_are_floats_to_pulumi() -> None:
    body = ray_cluster_body(SPEC)
    body["spec"]["workerGroupSpecs"][0]["maxReplicas"] = 99.0
    assert reported(Policy(max_replicas=20), RAY, body) == [
        "max-replicas: a: spec.workerGroupSpecs[cpu].maxReplicas: 99 is more than 20 (rule max_replicas)"
    ]


def test_others_resources_are_left_alone() -> None:
    policy = Policy(public_address=False)
    service: dict[str, Any] = {"apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": {"type": "LoadBalancer"}}
    assert reported(policy, "kubernetes:core/v1:Service", service) == []
    service["metadata"] = {"labels": {"app.kubernetes.io/managed-by": "infill"}}
    assert reported(policy, "kubernetes:core/v1:Service", service) == [
        "public-address: a: spec.type: LoadBalancer gives a public address; use ClusterIP (rule public_address)"
    ]
    assert reported(policy, "aws:s3/bucket:Bucket", service) == []


def test_what_is_not_known_before_up_is_left_out() -> None:
    body = ray_cluster_body(SPEC)
    body["metadata"]["namespace"] = UNKNOWN_STRING_VALUE
    body["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"] = UNKNOWN_STRING_VALUE
    assert reported(Policy(namespaces=["ray"], images=["rayproject/*"]), RAY, body) == []


def test_a_wrong_file_ends_the_pack_with_its_words(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("max_cpu: 1")
    with pytest.raises(pulumi.RunError, match="unknown key 'max_cpu'; did you mean 'max_cpus'"):
        policy_pack(tmp_path / "policy.yaml")
