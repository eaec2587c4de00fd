from __future__ import annotations

import copy
import json
import pickle
import sys
from importlib import metadata
from typing import Any

import pytest
from pydantic import ValidationError

from infra.errors import BadSpec
from infra.groups import HeadGroup, Requests, SecretKey, WorkerGroup
from infra.images import default_image
from infra.parts import AwsConfig, GcsFaultTolerance, K8sConfigMethod, UpgradeStrategy
from infra.spec import ExternalClusterSpec, KubeRayClusterSpec, LocalClusterSpec, has_token_authentication, parse_spec, warn_about
from tests.unit.cluster_specs import parsed

FULL = {
    "name": "full",
    "namespace": "ray",
    "ray_version": "2.60.0",
    "head_group": {"cpus": 2, "env": {"A": 1, "B": True, "C": "x", "D": {"secret": "s", "key": "k"}, "E": 0.5, "F": False}},
    "worker_groups": [{}, {"kind": "gpu"}, {"name": "big", "memory": "64Gi", "requests": {"memory": "32Gi"}}],
    "autoscaler": {"version": "v1", "idle_timeout_seconds": 5},
    "gcs_fault_tolerance": {"redis_address": "redis:6379", "redis_password": {"secret": "redis", "key": "password"}},
    "upgrade_strategy": "NewCluster",
    "ray_init_kwargs": {"runtime_env": {"env_vars": {"A": "b"}}},
}


def refusal(plain: Any, **more: Any) -> str:
    with pytest.raises(BadSpec) as caught:
        parse_spec({"name": "a", **plain, **more} if isinstance(plain, dict) else plain)
    return str(caught.value)


def test_defaults_of_a_cluster() -> None:
    spec = KubeRayClusterSpec(name="a")
    assert (spec.kind, spec.namespace, spec.config_method) == ("kuberay", "default", K8sConfigMethod.LOCAL)
    assert spec.upgrade_strategy is UpgradeStrategy.RECREATE
    assert [group.name for group in spec.worker_groups] == ["cpu"]
    assert (spec.autoscaler.enabled, spec.autoscaler.version, spec.autoscaler.idle_timeout_seconds) == (True, "v2", 60)
    assert (spec.ready_timeout_seconds, spec.unschedulable_seconds, spec.suspend, spec.protect) == (900, 60, False, False)
    assert spec.ray == metadata.version("ray")
    assert spec.warnings() == []
    spec.check_provisionable()


def test_defaults_of_groups() -> None:
    for group in (HeadGroup(), WorkerGroup()):
        assert (group.cpus, group.memory, group.gpus, group.arch, group.requests) == ("4", "8Gi", 0, "amd64", None)
        assert group.gpu_resource == "nvidia.com/gpu"
    assert (WorkerGroup().kind, WorkerGroup().min_replicas, WorkerGroup().max_replicas) == ("cpu", 0, 10)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"kind": "gpu"}, ("gpu", 1, "8", "16Gi")),
        ({"gpus": 4}, ("gpu", 4, "8", "16Gi")),
        ({"kind": "gpu", "cpus": 2, "memory": "8Gi"}, ("gpu", 1, "2", "8Gi")),
        ({"gpus": 0}, ("cpu", 0, "4", "8Gi")),
    ],
)
def test_gpus_make_a_gpu_group_of_its_own_size(given: dict[str, Any], expected: tuple[Any, ...]) -> None:
    group = WorkerGroup(**given)
    assert (group.kind, group.gpus, group.cpus, group.memory) == expected


def test_values_become_what_kubernetes_takes() -> None:
    spec = parsed(FULL)
    assert spec.head_group.cpus == "2"
    assert spec.head_group.env == {"A": "1", "B": "true", "C": "x", "D": SecretKey(secret="s", key="k"), "E": "0.5", "F": "false"}
    assert spec.gcs_fault_tolerance == GcsFaultTolerance(
        redis_address="redis:6379", redis_password={"secret": "redis", "key": "password"}
    )
    assert spec.worker_groups[2].requests == Requests(memory="32Gi")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (2, "2"),
        (0.5, "0.5"),
        (2.0, "2"),
        (8589934592, "8589934592"),
        (2**53 + 1, "9007199254740993"),
        ("500m", "500m"),
        (".5", ".5"),
        ("1e3", "1e3"),
        ("2E", "2E"),
        ("1.", "1."),
    ],
)
def test_quantities_are_exact(given: Any, expected: str) -> None:
    assert HeadGroup(cpus=given).cpus == expected


@pytest.mark.parametrize("given", [16, "500m", "999k"])
def test_memory_that_is_less_than_a_process_is_a_missing_suffix(given: Any) -> None:
    assert "bytes; write 8Gi" in refusal({"worker_groups": [{"memory": given}]})
    assert HeadGroup(memory="1M").memory == "1M"


@pytest.mark.parametrize("key", ["infill/cluster", "infill/stack", "ray.io/group"])
def test_labels_by_which_objects_are_known_are_not_a_user_s_to_set(key: str) -> None:
    assert "choose another prefix" in refusal({"labels": {key: "mine"}})
    assert "choose another prefix" in refusal({"worker_groups": [{"labels": {key: "mine"}}]})


@pytest.mark.parametrize(
    "given", ["0", "-1", "1 Gi", "1gi", "1e", "1e100", "8GB", "", "Gi", "0x10", "\u0661", "1\n", True, [1], float("inf")]
)
def test_what_is_no_quantity_is_refused(given: Any) -> None:
    assert refusal({"head_group": {"ephemeral_storage": given}}).startswith("KubeRayClusterSpec: head_group.ephemeral_storage: ")


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        ([{}, {}, {"gpus": 1}, {"kind": "gpu"}], ["cpu", "cpu-2", "gpu", "gpu-2"]),
        ([{}, {"name": "cpu"}], ["cpu-2", "cpu"]),
        ([{"name": "cpu-2"}, {}, {}], ["cpu-2", "cpu", "cpu-3"]),
        ([], []),
    ],
)
def test_groups_get_names_of_their_own(groups: list[dict[str, Any]], names: list[str]) -> None:
    spec = parsed({"name": "a", "worker_groups": groups})
    assert list(spec.groups()) == ["head", *names]
    assert [group.name for group in parsed(spec.plain()).worker_groups] == names


def test_two_groups_of_one_name_are_refused() -> None:
    assert refusal({"worker_groups": [{"name": "x"}, {}, {"name": "x"}]}) == (
        "KubeRayClusterSpec: worker_groups: two groups have the name 'x'; a group is found by its name"
    )


@pytest.mark.parametrize("name", ["head", "headgroup"])
def test_a_worker_group_is_not_named_as_the_head(name: str) -> None:
    assert f"{name!r} is the head's own name" in refusal({"worker_groups": [{"name": name}]})


def test_the_autoscaler_sets_replicas_itself() -> None:
    assert refusal({"worker_groups": [{"replicas": 3}]}).endswith(
        "worker_groups.cpu: replicas: 3 is the autoscaler's to set; "
        "give min_replicas: 3 to have as many at least, or autoscaler: {enabled: false}"
    )
    off = {"autoscaler": {"enabled": False}}
    assert parsed({"name": "a", **off, "worker_groups": [{"replicas": 3}]}).worker_groups[0].replicas == 3
    assert parsed({"name": "a", **off}).worker_groups[0].replicas is None
    for field in ("min_replicas", "max_replicas", "idle_timeout_seconds"):
        message = refusal(off, worker_groups=[{field: 1}])
        assert message.endswith("are for the autoscaler, which is off; give replicas")


def test_arch_and_selector_agree() -> None:
    agreed = HeadGroup(arch="arm64", node_selector={"kubernetes.io/arch": "arm64"})
    assert agreed.arch == "arm64"
    assert refusal({"head_group": {"node_selector": {"kubernetes.io/arch": "arm64"}}}) == (
        "KubeRayClusterSpec: head_group: node_selector: kubernetes.io/arch=arm64 contradicts arch=amd64; set arch: arm64"
    )


def test_every_problem_is_told_at_once() -> None:
    assert refusal({"namespace": "A", "head_group": {"cpus": "x", "gpus": -1}}).splitlines() == [
        "KubeRayClusterSpec: namespace: 'A' is not lowercase letters, digits and '-', with a letter or digit at both ends",
        "KubeRayClusterSpec: head_group.cpus: 'x' is no quantity; write 2, 500m, 8Gi or 16G",
        "KubeRayClusterSpec: head_group.gpus: Input should be greater than or equal to 0, not -1",
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"head_grp": {}}, "KubeRayClusterSpec: unknown key 'head_grp'; did you mean 'head_group'?"),
        ({"head_group": {"cpu": 2}}, "KubeRayClusterSpec: head_group: unknown key 'cpu'; did you mean 'cpus'?"),
        (
            {"worker_groups": [{}, {"maxReplicas": 2}]},
            "KubeRayClusterSpec: worker_groups[1]: unknown key 'maxReplicas'; did you mean 'max_rep",
        ),
        ({"autoscaler": {"zzz": 1}}, "KubeRayClusterSpec: autoscaler: unknown key 'zzz'; it may have cpus, enabled, "),
        ({1: 2}, "KubeRayClusterSpec: unknown key 1; "),
    ],
)
def test_an_unknown_key_gives_the_nearest_right_one(given: dict[Any, Any], said: str) -> None:
    assert refusal(given).startswith(said)


def test_names_of_fifty_characters_and_no_more() -> None:
    assert KubeRayClusterSpec(name="n" * 50).name == "n" * 50
    assert (
        refusal({"name": "n" * 51})
        == f"KubeRayClusterSpec: name: '{'n' * 51}' has 51 characters, at most 50 fit the names that are made of it"
    )
    assert KubeRayClusterSpec(name="n" * 43, upgrade_strategy="NewCluster").upgrade_strategy is UpgradeStrategy.NEW_CLUSTER
    assert "NewCluster adds a hash, so at most 43 fit" in refusal({"name": "n" * 44, "upgrade_strategy": "NewCluster"})


@pytest.mark.parametrize("data", [None, [], "name: a", 5])
def test_a_spec_is_a_mapping(data: Any) -> None:
    assert refusal(data) == f"a cluster is a mapping with a name, not {type(data).__name__}"


@pytest.mark.parametrize("kind", ["ray", "", None, [], {}, 1])
def test_an_unknown_kind_is_refused(kind: Any) -> None:
    assert refusal({"kind": kind}) == f"kind: {kind!r} is none of kuberay, local, external"


def test_other_kinds() -> None:
    local, external = (
        parse_spec({"kind": "local", "name": "1st"}),
        parse_spec({"kind": "external", "name": "e", "address": "ray://h:10001"}),
    )
    assert local == LocalClusterSpec(name="1st")
    assert external == ExternalClusterSpec(name="e", address="ray://h:10001")
    assert "LocalClusterSpec: unknown key 'namespace'" in refusal({"kind": "local", "namespace": "x"})
    assert refusal({"kind": "external"}) == "ExternalClusterSpec: address: Field required"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://host:10001", None),
        ("http://10.0.0.1:8265", None),
        ("https://h/ray", None),
        ("ray://[::1]:10001", None),
        ("ray://host", "has no port"),
        ("host:10001", "is no address of Ray"),
        ("ray://host:99999", "port 99999 is not between"),
        ("ray://host:0", "port 0 is not between"),
        ("http://h:1 x", "is no address of Ray"),
        ("ray://:10001", "is no address of Ray"),
    ],
)
def test_addresses(address: str, said: str | None) -> None:
    given = {"kind": "external", "address": address}
    if said:
        assert said in refusal(given)
    else:
        assert parse_spec({"name": "a", **given}).plain()["address"] == address


def test_warnings_are_refusals_when_it_is_provisioned() -> None:
    spec = parsed({"name": "a", "head_group": {"service_account": "my_k8s_service_account"}})
    with pytest.warns(UserWarning, match="cluster 'a': head_group.service_account: 'my_k8s_service_account' is not lowercase"):
        warn_about(spec)
    with pytest.raises(
        BadSpec, match=r"cluster 'a': head_group.service_account: 'my_k8s_service_account' is not .*Kubernetes will refuse it"
    ):
        spec.check_provisionable()


@pytest.mark.parametrize(
    ("given", "problems"),
    [
        ({"worker_groups": [{"service_account": "A"}]}, ["worker_groups.cpu.service_account"]),
        ({"config_method": "EKS_AUTH"}, ["aws_config.cluster_name"]),
        ({"config_method": "EKS_AUTH", "aws_config": {"region": "r"}}, ["aws_config.cluster_name"]),
        ({"config_method": "EKS_AUTH", "aws_config": {"cluster_name": "c"}}, []),
        ({"ray_version": "2.60.0", "head_group": {"image": "rayproject/ray:2.59.0-py311"}}, ["head_group.image"]),
        (
            {"python_version": "3.11", "head_group": {"image": "mirror:5000/rayproject/ray-ml:2.60.0-py310-gpu"}},
            ["head_group.image"],
        ),
        ({"ray_version": "2.60.0", "python_version": "3.11", "head_group": {"image": "rayproject/ray:2.60.0-py311-cu128"}}, []),
        ({"ray_version": "2.60.0", "head_group": {"image": "registry.example.com/our-worker:1.4.2"}}, []),
    ],
)
def test_what_warns(given: dict[str, Any], problems: list[str]) -> None:
    assert [problem.partition(":")[0] for problem in parsed({"name": "a", **given}).warnings()] == problems


@pytest.mark.parametrize(("version", "has"), [("2.51.2", False), ("2.52.0", True), ("2.9.3", False), ("3.0.0", True)])
def test_tokens_are_on_where_ray_has_them(version: str, has: bool) -> None:
    assert has_token_authentication(version) is has
    assert parsed({"name": "a", "ray_version": version}).has_token is has
    assert parsed({"name": "a", "ray_version": version, "token_authentication": False}).has_token is False
    if has:
        assert parsed({"name": "a", "ray_version": version, "token_authentication": True}).has_token is True
    else:
        assert "since 2.52.0" in refusal({"ray_version": version, "token_authentication": True})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "rayproject/ray:2.60.0-py311"),
        ({"gpu": True}, "rayproject/ray:2.60.0-py311-gpu"),
        ({"arch": "arm64"}, "rayproject/ray:2.60.0-py311-aarch64"),
        ({"arch": "arm64", "gpu": True}, "rayproject/ray:2.60.0-py311-gpu-aarch64"),
    ],
)
def test_default_images(options: dict[str, Any], expected: str) -> None:
    assert default_image("2.60.0", "3.11", **options) == expected


def test_images_are_those_of_the_client_unless_the_spec_says_otherwise() -> None:
    python = f"{sys.version_info.major}{sys.version_info.minor}"
    assert KubeRayClusterSpec(name="a").image_of(HeadGroup()) == f"rayproject/ray:{metadata.version('ray')}-py{python}"
    spec = KubeRayClusterSpec(name="a", ray_version="2.50.1", python_version="3.10")
    assert spec.image_of(HeadGroup(gpus=1)) == "rayproject/ray:2.50.1-py310-gpu"
    assert spec.image_of(HeadGroup(gpus=1, image="mine:1")) == "mine:1"


def test_a_spec_survives_storage() -> None:
    for plain in (FULL, {"name": "a"}, {"kind": "local", "name": "a"}, {"kind": "external", "name": "a", "address": "http://h:1"}):
        spec = parse_spec(plain)
        assert parse_spec(spec.plain()) == spec
        assert parse_spec(json.loads(json.dumps(spec.plain()))) == spec
        assert pickle.loads(pickle.dumps(spec)) == spec
        assert type(copy.deepcopy(spec)) is type(spec)
        assert copy.deepcopy(spec) == spec


def test_plain_holds_what_was_given_and_the_names_of_groups() -> None:
    assert KubeRayClusterSpec(name="a").plain() == {"kind": "kuberay", "name": "a"}
    given = {"name": "a", "aws_config": {"region": "r"}, "worker_groups": [{"cpus": 2}], "suspend": False}
    assert parsed(given).plain() == {"kind": "kuberay", **given, "worker_groups": [{"cpus": "2", "name": "cpu"}]}


def test_the_hash_changes_with_the_spec_and_nothing_else() -> None:
    spec = KubeRayClusterSpec(name="a")
    spelled = parsed({"name": "a", "kind": "kuberay", "namespace": "default", "head_group": {"cpus": 4}, "worker_groups": [{}]})
    assert spelled == spec
    assert spelled.spec_hash() == spec.spec_hash()
    assert pickle.loads(pickle.dumps(spelled)).spec_hash() == spec.spec_hash()
    others = [{"name": "b"}, {"namespace": "b"}, {"head_group": {"cpus": 5}}, {"worker_groups": []}, {"suspend": True}]
    hashes = {parsed({"name": "a", **other}).spec_hash() for other in others} | {spec.spec_hash()}
    assert len(hashes) == len(others) + 1
    assert all(len(found) == 12 and int(found, 16) for found in hashes)


def test_a_spec_is_frozen() -> None:
    spec = KubeRayClusterSpec(name="a")
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "b"
    with pytest.raises(ValidationError, match="frozen"):
        spec.head_group.cpus = "1"


def test_construction_by_hand_raises_the_same_error() -> None:
    with pytest.raises(BadSpec, match=r"^AwsConfig: unknown key 'az'; it may have cluster_name, region, role$"):
        AwsConfig(az="a")
    with pytest.raises(BadSpec, match=r"^WorkerGroup: min_replicas: 3 is more than max_replicas: 2$"):
        WorkerGroup(min_replicas=3, max_replicas=2)
