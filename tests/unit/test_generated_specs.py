"""What holds for every spec, and for every spec with one thing broken."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from pydantic import BaseModel

from infra.body import alias_service_body, network_policy_body, ray_cluster_body, template_hashes
from infra.errors import BadSpec
from infra.files import to_yaml
from infra.groups import HeadGroup, Mount, Requests, SecretKey, WorkerGroup
from infra.parts import AutoscalerOptions, AwsConfig, GcsFaultTolerance, GcsStorage, NetworkPolicy, Scheduler, UpgradeStrategy
from infra.spec import KubeRayClusterSpec, parse_spec
from tests.unit.broken_specs import ENTRIES, Broken, broken, invalid_specs
from tests.unit.cluster_specs import Plain, collected, parsed, plain_specs, specs

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FEW
@given(specs())
def test_a_spec_survives_storage(spec: KubeRayClusterSpec) -> None:
    for stored in (
        spec.plain(),
        json.loads(json.dumps(spec.plain(), sort_keys=True)),
        yaml.safe_load(to_yaml(spec.plain())),
    ):
        assert parse_spec(stored) == spec
        assert parse_spec(stored).spec_hash() == spec.spec_hash()
    assert pickle.loads(pickle.dumps(spec)) == spec


@FEW
@given(plain_specs())
def test_same_spec_same_body(plain: Plain) -> None:
    before = json.dumps(plain)
    spec = parsed(plain)
    body = ray_cluster_body(spec)
    assert json.dumps(plain) == before
    assert ray_cluster_body(spec) == body
    assert ray_cluster_body(parsed(plain)) == body
    assert ray_cluster_body(parse_spec(spec.plain())) == body
    assert json.loads(json.dumps(body)) == body


@FEW
@given(specs())
def test_a_body_holds_together(spec: KubeRayClusterSpec) -> None:
    body = ray_cluster_body(spec)
    assert len(body["metadata"]["name"]) <= 50
    assert body["metadata"]["name"].startswith(spec.name)
    assert (body["metadata"]["name"] == spec.name) is (spec.upgrade_strategy is not UpgradeStrategy.NEW_CLUSTER)
    assert set(template_hashes(body)) == {"headgroup", *(group.name for group in spec.worker_groups)}
    assert all(template_hashes(body).values())
    assert "${env:" not in json.dumps(body)
    assert list(_nulls(body)) == []
    for group in (body["spec"]["headGroupSpec"], *body["spec"]["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        volumes = [volume["name"] for volume in pod["volumes"]]
        assert len(volumes) == len(set(volumes))
        for container in pod["containers"]:
            mounts = container.get("volumeMounts", [])
            assert {mount["name"] for mount in mounts} <= set(volumes)
            assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
            names = [variable["name"] for variable in container.get("env", [])]
            assert len(names) == len(set(names))
    others = [alias_service_body(spec, spec.name)] + ([network_policy_body(spec)] if spec.network_policy else [])
    assert {other["metadata"]["namespace"] for other in (body, *others)} == {spec.namespace}


@pytest.mark.parametrize("in_head", [True, False])
@pytest.mark.parametrize("number", ENTRIES)
def test_each_broken_thing_is_named(number: int, in_head: bool) -> None:
    _check_refusal(broken({"name": "a"}, number, in_head=in_head))


@settings(FEW, max_examples=150)
@given(invalid_specs())
def test_a_broken_thing_is_named_and_nothing_else(wrong: Broken) -> None:
    _check_refusal(wrong)


def test_the_strategies_set_every_field_of_every_part() -> None:
    parts = {KubeRayClusterSpec, HeadGroup, WorkerGroup, Requests, Mount, SecretKey, AutoscalerOptions, AwsConfig,
             GcsFaultTolerance, GcsStorage, NetworkPolicy, Scheduler}  # fmt: skip
    wanted = {part: set(part.model_fields) for part in parts}
    # What hypothesis draws depends on the modules that other tests have loaded, so it is given more tries where it needs them.
    assert any(_fields_set(count) == wanted for count in (250, 1000, 4000)), _fields_set(250)


def _check_refusal(wrong: Broken) -> None:
    """Each line of the refusal is of the field that is broken."""
    with pytest.raises(BadSpec) as caught:
        parse_spec(wrong.plain)
    begins = f"KubeRayClusterSpec: {wrong.field}"
    assert [line for line in str(caught.value).splitlines() if not line.startswith(begins)] == [], wrong.plain


def _fields_set(count: int) -> dict[type[BaseModel], set[str]]:
    seen: dict[type[BaseModel], set[str]] = {}
    for plain in collected(plain_specs(), count):
        for part in _parts(parsed(plain)):
            seen.setdefault(type(part), set()).update(part.model_fields_set)
    return seen


def _parts(value: Any) -> Any:
    if isinstance(value, BaseModel):
        yield value
        value = [getattr(value, field) for field in type(value).model_fields]
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from _parts(item)


def _nulls(tree: Any, path: str = "") -> Any:
    if tree is None:
        yield path
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else []
    for key, value in pairs:
        yield from _nulls(value, f"{path}.{key}")
