"""Reads of Kubernetes, against a small API server: which kubeconfig, what each refusal says, and what runs on a cluster."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import infra.kube
from infra.errors import BadSpec, InfraError, NotAllowed
from infra.kube import Access, Kubernetes, access_of, local_access, run
from infra.spec import KubeRayClusterSpec, parse_spec
from tests.unit.fake_kubernetes import API, Body, FakeKubernetes, kubeconfig_of

PLAIN: Body = {"name": "dev", "ray_version": "2.60.0", "python_version": "3.11", "worker_groups": [{"name": "cpu"}, {"name": "io"}]}
NOTHING_THERE = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def no_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of this machine's."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def spec_of(**fields: Any) -> KubeRayClusterSpec:
    spec = parse_spec({**PLAIN, **fields})
    assert isinstance(spec, KubeRayClusterSpec)
    return spec


def write(path: Path, config: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    return str(path)


def refusal(kind: type[InfraError], work: Any) -> str:
    with pytest.raises(kind) as caught:
        run(work)
    assert type(caught.value) is kind
    return str(caught.value)


# Which kubeconfig


def test_the_kubeconfig_given_then_that_of_the_variable_then_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = write(tmp_path / "home/.kube/config", kubeconfig_of(NOTHING_THERE))
    assert local_access() == Access(default)
    named = write(tmp_path / "named", kubeconfig_of(NOTHING_THERE))
    monkeypatch.setenv("KUBECONFIG", named)
    assert local_access() == Access(named)
    given = write(tmp_path / "home/given", kubeconfig_of(NOTHING_THERE))
    assert local_access("~/given", "here") == Access(given, "here")
    assert access_of(spec_of(kubeconfig=given, context="here")) == Access(given, "here")


def test_a_kubeconfig_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remedy = "; set KUBECONFIG, or kubeconfig: PATH in the cluster's spec"
    for given, source in ((None, "the default"), (f"{tmp_path}/none", "kubeconfig")):
        with pytest.raises(BadSpec) as caught:
            local_access(given)
        assert str(caught.value) == f"no kubeconfig at {given or '~/.kube/config'} ({source}){remedy}"
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/a:{tmp_path}/b")
    with pytest.raises(BadSpec, match=rf"^no kubeconfig at {tmp_path}/a:{tmp_path}/b \(KUBECONFIG\)"):
        local_access()


def test_a_context_that_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "config", kubeconfig_of(NOTHING_THERE))
    with pytest.raises(BadSpec) as caught:
        local_access(path, "prod")
    assert str(caught.value) == f"context: 'prod' is not in {path}; it has here"


@pytest.mark.parametrize("current", [None, "", "gone"])
def test_no_current_context(tmp_path: Path, current: str | None) -> None:
    config = {key: value for key, value in kubeconfig_of(NOTHING_THERE).items() if key != "current-context"}
    path = write(tmp_path / "config", config if current is None else {**config, "current-context": current})
    with pytest.raises(BadSpec) as caught:
        local_access(path)
    assert str(caught.value) == f"{path} has no current context; name one with context: (here)"
    assert local_access(path, "here") == Access(path, "here")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "cannot read the kubeconfig {path}: while parsing a flow node"),
        ("just text", "{path} is no kubeconfig"),
        ("[]", "{path} is no kubeconfig"),
        ("", "{path} is no kubeconfig"),
        ("a: b", "{path} has no current context; name one with context: (it has none)"),
    ],
)
def test_a_file_that_is_no_kubeconfig(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path / "config", text)
    with pytest.raises(BadSpec) as caught:
        local_access(path)
    assert str(caught.value).startswith(problem.format(path=path))


def test_in_cluster_is_for_pods(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = spec_of(config_method="IN_CLUSTER")
    monkeypatch.setattr(infra.kube, "IN_CLUSTER_FOLDER", str(tmp_path / "none"))
    with pytest.raises(BadSpec, match=r"^config_method: IN_CLUSTER works in a pod with a service account, and this is none; use"):
        access_of(spec)
    monkeypatch.setattr(infra.kube, "IN_CLUSTER_FOLDER", str(tmp_path))
    assert access_of(spec) == Access(None)


@pytest.mark.parametrize("current_in", ["first", "second"])
def test_several_files_are_joined_as_kubeconfig_joins_them(
    fake: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, current_in: str
) -> None:
    whole = kubeconfig_of(fake.url)
    first = {"users": whole["users"], **({"current-context": "here"} if current_in == "first" else {})}
    second = {"clusters": whole["clusters"], "contexts": whole["contexts"]}
    second |= {"current-context": "here"} if current_in == "second" else {}
    paths = [write(tmp_path / "a", first), f"{tmp_path}/missing", write(tmp_path / "b", second)]
    monkeypatch.setenv("KUBECONFIG", ":".join(paths))
    access = local_access()
    assert access == Access(f"{paths[0]}:{paths[2]}")
    assert run(run(Kubernetes.connect(access)).get("/apis/ray.io/v1")) == API


def test_a_context_given_is_used_where_none_is_current(fake: FakeKubernetes, tmp_path: Path) -> None:
    whole = kubeconfig_of(fake.url)
    other = {"name": "other", "context": {"cluster": "nowhere", "user": "ana"}}
    whole |= {"contexts": [other, *whole["contexts"]], "current-context": ""}
    access = local_access(write(tmp_path / "config", whole), "here")
    run(Kubernetes.connect(access))
    assert fake.requests("GET") == ["/version"]


def test_a_kubeconfig_that_is_given_is_one_file(tmp_path: Path) -> None:
    path = write(tmp_path / "config", kubeconfig_of(NOTHING_THERE))
    with pytest.raises(BadSpec, match=rf"^no kubeconfig at {path}:{path} \(kubeconfig\)"):
        local_access(f"{path}:{path}")


# What can go wrong on the way


def test_one_connection_for_one_access(fake: FakeKubernetes, tmp_path: Path) -> None:
    access = Access(fake.kubeconfig(tmp_path))
    assert run(Kubernetes.connect(access)) is run(Kubernetes.connect(access))
    assert fake.requests("GET") == ["/version"]
    assert fake.asked[0].headers["authorization"] == "Bearer text-of-a-token"


def test_nothing_listens(tmp_path: Path) -> None:
    access = Access(write(tmp_path / "config", kubeconfig_of(NOTHING_THERE)), "here")
    text = refusal(InfraError, Kubernetes.connect(access))
    assert text.startswith(f"cannot reach Kubernetes ({access.kubeconfig}, context here): ")
    assert text.endswith("; is it up, and is this the right kubeconfig and context?")


def test_something_listens_and_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infra.kube, "REQUEST_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        access = Access(write(tmp_path / "config", kubeconfig_of(f"http://127.0.0.1:{mute.getsockname()[1]}")))
        assert refusal(InfraError, Kubernetes.connect(access)).startswith(f"cannot reach Kubernetes ({access}): ")


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        ((401, {"message": "Unauthorized"}), NotAllowed, "does not accept these credentials: Unauthorized"),
        ((403, {"message": "no access"}), NotAllowed, "does not accept these credentials: no access"),
        ((500, {"message": "etcd is gone"}), InfraError, "answered 500"),
        ((200, "<html>a proxy</html>"), BadSpec, "cannot be used"),
    ],
)
def test_a_server_that_does_not_say_its_version(
    fake: FakeKubernetes, tmp_path: Path, answer: tuple[int, Any], kind: type[InfraError], text: str
) -> None:
    fake.answers["GET /version"] = [answer]
    assert text in refusal(kind, Kubernetes.connect(Access(fake.kubeconfig(tmp_path))))


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ([sys.executable, "-c", "import sys; sys.exit('the login has expired')"], "the login has expired"),
        (["/nonexistent/aws-iam-authenticator"], "No such file or directory: '/nonexistent/aws-iam-authenticator'"),
        ([sys.executable, "-c", "print('no JSON')"], "cannot be used"),
    ],
)
def test_a_command_for_credentials_that_fails(fake: FakeKubernetes, tmp_path: Path, command: list[str], text: str) -> None:
    exec_user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": command[0], "args": command[1:]}}
    access = Access(write(tmp_path / "config", kubeconfig_of(fake.url, user=exec_user)))
    with pytest.raises(InfraError) as caught:
        run(Kubernetes.connect(access))
    assert text in str(caught.value)
    assert str(access) in str(caught.value)
    assert fake.asked == []


def test_what_each_status_of_an_answer_is(fake: FakeKubernetes, kube: Kubernetes) -> None:
    path = "/api/v1/namespaces/ray/pods/x"
    forbidden = 'pods "x" is forbidden: User "ana" cannot get resource "pods" in API group "" in the namespace "ray"'
    fake.answers[f"GET {path}"] = [
        (200, {"kind": "Pod"}),
        (404, {"message": "not found"}),
        (403, {"message": forbidden}),
        (500, {"message": "etcd is gone"}),
        (503, "no leader"),
        (401, {"message": "Unauthorized"}),
    ]
    assert run(kube.get(path)) == {"kind": "Pod"}
    assert run(kube.get(path)) is None
    assert refusal(NotAllowed, kube.get(path)) == f"Kubernetes ({kube.access}): {forbidden}"
    assert refusal(InfraError, kube.get(path)) == f"Kubernetes ({kube.access}) answered 500 to GET {path}: etcd is gone"
    assert refusal(InfraError, kube.get(path)) == f"Kubernetes ({kube.access}) answered 503 to GET {path}: no leader"
    assert "does not accept these credentials: Unauthorized" in refusal(NotAllowed, kube.get(path))


def test_credentials_that_expired_are_renewed(fake: FakeKubernetes, kube: Kubernetes) -> None:
    refused = (401, {"message": "Unauthorized"})
    fake.answers["GET /apis/ray.io/v1"] = [refused, refused, (200, API)]
    assert run(kube.get("/apis/ray.io/v1")) == API


def test_an_api_server_that_went_away(fake: FakeKubernetes, kube: Kubernetes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infra.kube, "REQUEST_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setattr(kube._api.auth, "server", f"http://127.0.0.1:{mute.getsockname()[1]}")
        run(kube._api._create_session())
        assert refusal(InfraError, kube.get("/apis/ray.io/v1")).startswith(f"cannot reach Kubernetes ({kube.access}): ")


def test_a_collection_that_is_not_there_is_empty(kube: Kubernetes) -> None:
    assert run(kube.list("/apis/none.io/v1/nones")) == []


def test_what_is_gone_need_not_be_deleted(fake: FakeKubernetes, kube: Kubernetes) -> None:
    run(kube.delete("/api/v1/namespaces/ray/pods/gone"))
    assert fake.requests("DELETE") == ["/api/v1/namespaces/ray/pods/gone"]
