"""The program that `pulumi up` runs: what each stack's config and the clusters' files declare, and what they are refused for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

import infra.kube
from infra.body import ray_cluster_body
from infra.files import read_spec
from infra.kube import Access, Kubernetes
from infra.spec import KubeRayClusterSpec
from stacks.program import declare
from tests.unit.fake_kubernetes import kubeconfig_of
from tests.unit.pulumi_mocks import Ran, run_program
from tests.unit.test_operator import definitions_in

Body = dict[str, Any]

STACKS = Path(__file__).parents[2] / "stacks"
SERVER = "https://kubernetes.example.com:6443"
FAST: Body = {"infill:wait": False}
SMALL: Body = {"ray_version": "2.60.0", "python_version": "3.11"}


@pytest.fixture(autouse=True)
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The one that KUBECONFIG names; nothing of this machine's."""
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(kubeconfig_of(SERVER)))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KUBECONFIG", str(path))
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "clusters").mkdir()
    return tmp_path / "clusters"


@pytest.fixture(autouse=True)
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KubeRay's definitions come from a folder, and no Kubernetes is asked."""
    (tmp_path / "crds").mkdir()
    monkeypatch.setattr("infra.operator.DEFINITIONS", definitions_in(tmp_path / "crds"))

    async def asked(access: Access) -> Kubernetes:
        raise AssertionError(f"{access} was asked")

    monkeypatch.setattr(Kubernetes, "connect", asked)


def write(folder: Path, name: str, **fields: Any) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": name, **SMALL, **fields}))
    return path


def up(folder: Path, *, stack: str = "test", **config: Any) -> Ran:
    return run_program(
        lambda: declare(folder), stack=stack, config={**FAST, **{f"infill:{key}": value for key, value in config.items()}}
    )


def up_as_it_is(stack: str) -> Ran:
    """A stack of the repository, with its own file."""
    config = yaml.safe_load((STACKS / f"Pulumi.{stack}.yaml").read_text())["config"]
    return run_program(lambda: declare(STACKS / "clusters"), stack=stack, config={**config, **FAST})


def body_of(name: str, **changed: Any) -> Body:
    spec = read_spec(STACKS / "clusters" / f"{name}.yaml")
    assert isinstance(spec, KubeRayClusterSpec)
    return ray_cluster_body(spec.model_copy(update=changed))


def kinds(ran: Ran) -> set[str]:
    return {key for key, item in ran.ok().resources.items() if not item.type.startswith("infill:")}


# The three stacks as they are

OPERATOR = {
    "kubernetes definitions",
    "Namespace kuberay-operator",
    "Release kuberay-operator",
    *{f"CustomResourceDefinition kuberay-operator-{plural}" for plural in ("rayclusters", "rayjobs", "rayservices", "raycronjobs")},
}


def access_to(namespace: str) -> set[str]:
    return {f"{kind} runner-{namespace}" for kind in ("Namespace", "ServiceAccount", "Role", "RoleBinding")}


def test_the_dev_stack() -> None:
    ran = up_as_it_is("dev")
    assert kinds(ran) == {"kubernetes kubernetes", "RayCluster dev"} | access_to("ray-dev")
    cluster = ran["RayCluster dev"]
    assert cluster.inputs["spec"] == body_of("dev")["spec"]
    assert cluster.metadata["namespace"] == "ray-dev"
    assert ran["Namespace runner-ray-dev"].metadata["name"] == "ray-dev"
    assert ran.exports["dev"]["dashboard_url"] == "http://dev-head-svc.ray-dev.svc:8265"
    assert set(ran.exports) == {"dev"}


def test_the_gpu_stack() -> None:
    ran = up_as_it_is("gpu")
    assert kinds(ran) == {"kubernetes kubernetes", "RayCluster gpu"} | access_to("ray-gpu") | OPERATOR
    assert ran["Release kuberay-operator"].inputs["version"] == "1.7.0"
    cluster = ran["RayCluster gpu"]
    assert cluster.inputs["spec"] == body_of("gpu")["spec"]
    assert [group["groupName"] for group in cluster.inputs["spec"]["workerGroupSpecs"]] == ["cpu", "gpu"]
    limits = cluster.inputs["spec"]["workerGroupSpecs"][1]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
    assert "Release kuberay-operator" in cluster.depends_on


def test_the_eks_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = tmp_path / "eks-kubeconfig"
    written.write_text(yaml.safe_dump(kubeconfig_of("https://eks.example.com")))
    asked = []

    def eks(spec: KubeRayClusterSpec) -> Access:
        asked.append(spec.aws_config)
        return Access(str(written))

    monkeypatch.setattr(infra.kube, "_eks_access", eks)
    ran = up_as_it_is("eks")
    assert [config.plain() for config in asked if config] == [
        {"region": "us-east-1", "cluster_name": "my-eks-cluster", "role": "arn:aws:iam::123456789012:role/infill-provisioner"}
    ]
    assert kinds(ran) == {"kubernetes kubernetes", "RayCluster eks"} | access_to("ray") | OPERATOR
    account = ran["ServiceAccount runner-ray"].metadata
    assert account["annotations"] == {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/infill-runner"}
    cluster = ran["RayCluster eks"].inputs["spec"]
    assert cluster == body_of("eks")["spec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert {group["template"]["spec"]["serviceAccountName"] for group in groups} == {account["name"]}
    assert ran["kubernetes kubernetes"].inputs["kubeconfig"] == str(written)


# Provider and order


def test_the_provider_of_the_ambient_kubeconfig_has_no_path_and_no_text() -> None:
    ran = up_as_it_is("dev").ok()
    assert ran["kubernetes kubernetes"].inputs == {"clusterIdentifier": SERVER}
    assert "text-of-a-token" not in ran.everything_in_clear()


def test_several_ambient_kubeconfigs(folder: Path, kubeconfig: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pulumi's provider reads a joined KUBECONFIG from the environment, not from its input."""
    users = {"users": yaml.safe_load(Path(kubeconfig).read_text())["users"]}
    (tmp_path / "users").write_text(yaml.safe_dump(users))
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/users:{kubeconfig}")
    write(folder, "a")
    assert up(folder).ok()["kubernetes kubernetes"].inputs == {"clusterIdentifier": SERVER}


def test_a_kubeconfig_that_is_given_is_a_path(folder: Path, kubeconfig: str) -> None:
    write(folder, "a")
    ran = up(folder, kubeconfig=kubeconfig, context="here").ok()
    assert ran["kubernetes kubernetes"].inputs == {"kubeconfig": kubeconfig, "context": "here", "clusterIdentifier": SERVER}
    assert "text-of-a-token" not in ran.everything_in_clear()


def test_everything_is_made_through_the_stack_s_provider() -> None:
    ran = up_as_it_is("gpu").ok()
    children = {item.key: item.provider for item in ran.resources.values() if item.type.startswith("kubernetes:")}
    definitions = {key for key in children if key.startswith("CustomResourceDefinition")}
    assert {children.pop(key) for key in definitions} == {"kubernetes definitions"}
    assert set(children.values()) == {"kubernetes kubernetes"}


def test_definitions_that_an_earlier_stack_left_are_taken_over_and_nothing_else_is() -> None:
    ran = up_as_it_is("gpu").ok()
    assert ran["kubernetes definitions"].inputs["upsertExistingObjects"] in (True, "true")
    assert "upsertExistingObjects" not in ran["kubernetes kubernetes"].inputs


def test_clusters_come_after_their_access() -> None:
    """So that they are destroyed before it: a namespace that goes takes all in it along."""
    depends = up_as_it_is("dev").ok()["infill:RayCluster dev"].depends_on
    assert access_to("ray-dev") <= depends


def test_clusters_share_a_provider_an_operator_and_one_access_in_each_namespace(folder: Path) -> None:
    write(folder, "a", namespace="one")
    write(folder, "b", namespace="one")
    write(folder, "c", namespace="two")
    ran = up(folder, access=True, operator=True)
    assert kinds(ran) == {
        "kubernetes kubernetes", "RayCluster a", "RayCluster b", "RayCluster c", *access_to("one"), *access_to("two"), *OPERATOR,
    }  # fmt: skip

    def readable(namespace: str) -> Any:
        return ran[f"Role runner-{namespace}"].inputs["rules"][-1]["resourceNames"]

    assert (readable("one"), readable("two")) == (["a", "b"], ["c"])
    assert set(ran.exports) == {"a", "b", "c"}


def test_clusters_of_two_kubernetes_have_a_provider_each(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text(yaml.safe_dump(kubeconfig_of("https://other.example.com")))
    write(folder, "a")
    write(folder, "b", kubeconfig=str(other))
    ran = up(folder).ok()
    assert ran["kubernetes kubernetes"].inputs["clusterIdentifier"] == SERVER
    assert ran["kubernetes kubernetes-2"].inputs["clusterIdentifier"] == "https://other.example.com"
    assert (ran["RayCluster a"].provider, ran["RayCluster b"].provider) == ("kubernetes kubernetes", "kubernetes kubernetes-2")


def test_one_access_for_the_token_of_a_cluster_with_a_hash_in_its_name(folder: Path) -> None:
    write(folder, "a", upgrade_strategy="NewCluster")
    ran = up(folder, access=True).ok()
    assert ran.exports["a"]["token_secret"] in ran["Role runner-default"].inputs["rules"][-1]["resourceNames"]
    proxied = ran["Role runner-default"].inputs["rules"][1]["resourceNames"]
    assert f"http:{ran.exports['a']['head_service']}:8265" in proxied


# Settings


def test_what_the_stack_sets_goes_over_the_clusters_own(folder: Path) -> None:
    write(folder, "a", namespace="own", labels={"team": "data"})
    ran = up(folder, namespace="theirs").ok()
    assert ran["RayCluster a"].metadata["namespace"] == "theirs"
    assert ran["RayCluster a"].metadata["labels"]["team"] == "data"
    assert up(folder).ok()["RayCluster a"].metadata["namespace"] == "own"


def test_the_config_method_of_the_stack(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infra.kube, "IN_CLUSTER_FOLDER", str(tmp_path))
    write(folder, "a")
    ran = up(folder, config_method="IN_CLUSTER").ok()
    assert ran["kubernetes kubernetes"].inputs == {}


def test_operator_and_access_with_settings_of_their_own(folder: Path, tmp_path: Path) -> None:
    write(folder, "a")
    (tmp_path / "mine").mkdir()
    ran = up(
        folder,
        operator={
            "version": "1.6.0",
            "namespace": "kr",
            "chart": "./chart",
            "feature_gates": {"RayCronJob": True},
            "values": {"replicas": 2},
            "definitions": definitions_in(tmp_path / "mine"),
        },
        access={"create_namespace": False, "service_account": "jobs", "azure_client_id": "0000"},
    ).ok()
    release = ran["Release kuberay-operator"].inputs
    assert (release["version"], release["namespace"], release["chart"]) == ("1.6.0", "kr", "./chart")
    assert release["values"] == {"featureGates": [{"name": "RayCronJob", "enabled": True}], "replicas": 2}
    assert "Namespace runner-default" not in ran.resources
    account = ran["ServiceAccount runner-default"].metadata
    assert (account["name"], account["annotations"]) == ("jobs", {"azure.workload.identity/client-id": "0000"})


def test_only_the_clusters_named_and_each_once(folder: Path) -> None:
    for name in "abc":
        write(folder, name)
    assert kinds(up(folder, clusters=["c", "a", "c"])) == {"kubernetes kubernetes", "RayCluster a", "RayCluster c"}
    assert kinds(up(folder, clusters=[])) == set()


def test_clusters_of_other_kinds_are_left_out_unless_they_are_named(folder: Path) -> None:
    write(folder, "a")
    (folder / "laptop.yaml").write_text("{kind: local, name: laptop}")
    (folder / "theirs.yaml").write_text("{kind: external, name: theirs, address: 'http://ray.example.com:8265'}")
    assert kinds(up(folder)) == {"kubernetes kubernetes", "RayCluster a"}
    text = refused(folder, clusters=["a", "laptop"])
    assert text == "infill:clusters: 'laptop' is not of kind kuberay; only such clusters are made in Kubernetes"


def test_adopting_lets_the_provider_take_over_what_exists(folder: Path) -> None:
    write(folder, "a")
    assert "upsertExistingObjects" not in up(folder).ok()["kubernetes kubernetes"].inputs
    assert up(folder, adopt=["a"]).ok()["kubernetes kubernetes"].inputs["upsertExistingObjects"] in (True, "true")


def test_config_of_other_namespaces_is_others_business(folder: Path) -> None:
    write(folder, "a")
    ran = run_program(lambda: declare(folder), config={**FAST, "kubernetes:context": "x", "aws:region": "y", "clusterss": "z"})
    assert kinds(ran) == {"kubernetes kubernetes", "RayCluster a"}


# Refusals: nothing is declared


def refused(folder: Path, **config: Any) -> str:
    ran = up(folder, **config)
    assert ran.resources == {}
    return ran.failed(pulumi.RunError)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"clusterss": ["a"]}, "unknown key 'clusterss'; did you mean 'clusters'?"),
        ({"acces": True}, "unknown key 'acces'; did you mean 'access'?"),
        ({"operator": {"verison": "1.7.0"}}, "operator.OperatorSettings: unknown key 'verison'; did you mean 'version'?"),
        ({"config_method": "EKS"}, "config_method: Input should be 'LOCAL', 'EKS_AUTH' or 'IN_CLUSTER', not 'EKS'"),
        ({"clusters": "a"}, "clusters: Input should be a valid list, not 'a'"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file(folder: Path, config: Body, problem: str) -> None:
    write(folder, "a")
    assert f"Pulumi.test.yaml: {problem}" in refused(folder, **config).splitlines()


def test_a_cluster_that_no_file_has(folder: Path) -> None:
    write(folder, "a")
    write(folder, "b")
    assert refused(folder, clusters=["c"]) == f"infill:clusters: no file in {folder} has the cluster 'c'; it has a, b"


def test_a_cluster_to_adopt_that_no_file_has(folder: Path) -> None:
    write(folder, "a")
    assert refused(folder, adopt=["b"]) == "infill:adopt: the stack does not make the cluster 'b'; it makes a"


def test_one_bad_file_among_good_ones(folder: Path) -> None:
    write(folder, "a")
    bad = write(folder, "b", head_group={"memory": "8GB", "cpu": 2})
    worse = write(folder, "c", worker_groups=[{"min_replicas": 5, "max_replicas": 1}])
    lines = refused(folder, clusters=["a"]).splitlines()
    assert lines[0].startswith(f"{bad}: head_group: unknown key 'cpu'; did you mean 'cpus'?")
    assert lines[1] == f"{worse}: worker_groups[0]: min_replicas: 5 is more than max_replicas: 1"


def test_what_the_policy_beside_the_folder_forbids(folder: Path) -> None:
    """With what the stack sets over the file."""
    write(folder, "a")
    (folder.parent / "policy.yaml").write_text("namespaces: [ray]")
    assert kinds(up(folder, namespace="ray")) == {"kubernetes kubernetes", "RayCluster a"}
    assert refused(folder) == "cluster 'a': namespace: 'default' is none of ray (rule namespaces)"
    (folder.parent / "policy.yaml").write_text("namespace: [ray]")
    assert "unknown key 'namespace'; did you mean 'namespaces'?" in refused(folder)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert refused(tmp_path / "none") == f"{tmp_path}/none is no folder; it is where the clusters' YAML files belong"


@pytest.mark.parametrize(
    ("fields", "config", "problem"),
    [
        ({"head_group": {"service_account": "my_account"}}, {}, "cluster 'b': head_group.service_account: 'my_account' is not"),
        ({"head_group": {"env": {"A": "${env:NOT_THERE}"}}}, {}, "NOT_THERE: not set in this environment"),
        ({"kubeconfig": "/nonexistent"}, {}, "no kubeconfig at /nonexistent (kubeconfig)"),
        ({"context": "prod"}, {}, "context: 'prod' is not in "),
        ({}, {"context": "prod"}, "context: 'prod' is not in "),
        ({}, {"namespace": "My_Space"}, "cluster a: namespace: 'My_Space' is not lowercase letters"),
        ({}, {"access": {"eks_role": "x"}}, "RunnerAccess: eks_role: 'x' is no ARN"),
        ({}, {"access": {"gke_service_account": "a", "azure_client_id": "b"}}, "RunnerAccess: identities of several clouds"),
        ({}, {"access": {"service_account": "my_account"}}, "RunnerAccess: 'my_account' is not lowercase letters"),
        ({}, {"operator": {"version": "1.3.0"}}, "cluster 'a': spec.autoscalerOptions.version needs KubeRay 1.4.0, and 1.3.0 runs"),
        (
            {"gcs_fault_tolerance": {"backend": "rocksdb"}},
            {"operator": True},
            "cluster 'b': spec.gcsFaultToleranceOptions.backend=rocksdb needs KubeRay's feature gate GCSFaultTolerance",
        ),
        ({}, {"operator": {"definitions": "/nonexistent"}}, "cannot read /nonexistent/ray.io_rayclusters.yaml: "),
    ],
)
def test_whatever_is_wrong_is_found_before_anything_is_declared(folder: Path, fields: Body, config: Body, problem: str) -> None:
    write(folder, "a")
    write(folder, "b", **fields)
    assert refused(folder, **config).startswith(problem)


def test_eks_without_the_cluster_s_name(folder: Path) -> None:
    write(folder, "a")
    assert refused(folder, config_method="EKS_AUTH") == (
        "cluster 'a': aws_config.cluster_name: EKS_AUTH needs the name of the EKS cluster"
    )
