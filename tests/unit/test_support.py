"""What a RayCluster asks of KubeRay, against the version and the gates of the one that runs."""

from __future__ import annotations

from typing import Any

import pytest

from infra.body import ray_cluster_body
from infra.errors import BadSpec
from infra.spec import KubeRayClusterSpec, parse_spec
from infra.support import MATRIX, Operator, check_jobs_supported, check_supported, operator_of, requirements, schedule_kind

Body = dict[str, Any]

REDIS = {"gcs_fault_tolerance": {"redis_address": "redis:6379"}}
ROCKSDB = {"gcs_fault_tolerance": {"backend": "rocksdb"}}
GROUP = {"headGroupSpec": {"labels": {"zone": "a"}}}


def body_of(**fields: Any) -> Body:
    """A cluster that asks for nothing of the matrix unless `fields` do."""
    plain = {"name": "dev", "ray_version": "2.51.0", "python_version": "3.11", "autoscaler": {"enabled": False}, **fields}
    spec = parse_spec(plain)
    assert isinstance(spec, KubeRayClusterSpec)
    return ray_cluster_body(spec)


def overridden(**cluster: Any) -> Body:
    return body_of(overrides={"spec": cluster})


# A body that asks for each entry of the matrix, in its order, and nothing of the others but what it must.
ASKING: list[tuple[str, Body]] = [
    ("gcsFaultToleranceOptions", body_of(**REDIS)),
    (
        "workerGroupSpecs[].idleTimeoutSeconds",
        body_of(worker_groups=[{"name": "cpu", "overrides": {"idleTimeoutSeconds": 5}}]),
    ),
    ("autoscalerOptions.version", body_of(autoscaler={})),
    ("headGroupSpec.labels", overridden(**GROUP)),
    ("workerGroupSpecs[].labels", body_of(worker_groups=[{"name": "cpu", "overrides": {"labels": {"zone": "a"}}}])),
    ("authOptions", body_of(ray_version="2.60.0")),
    ("upgradeStrategy", overridden(upgradeStrategy={"type": "Recreate"})),
    ("workerGroupSpecs[].priority", body_of(worker_groups=[{"name": "a"}, {"name": "b", "overrides": {"priority": 3}}])),
    ("headGroupSpec.ingressOptions", overridden(headGroupSpec={"ingressOptions": {"host": "x"}})),
    ("networkPolicy", overridden(networkPolicy={"mode": "DenyAll"})),
    ("tlsOptions", overridden(tlsOptions={"mode": "mTLS"})),
    ("historyServerOptions", overridden(historyServerOptions={"enabled": True})),
    ("gcsFaultToleranceOptions.backend=rocksdb", body_of(**ROCKSDB)),
]
SINCE = {
    "gcsFaultToleranceOptions": ("1.3.0", None),
    "workerGroupSpecs[].idleTimeoutSeconds": ("1.3.0", None),
    "autoscalerOptions.version": ("1.4.0", None),
    "headGroupSpec.labels": ("1.5.0", None),
    "workerGroupSpecs[].labels": ("1.5.0", None),
    "authOptions": ("1.5.1", None),
    "upgradeStrategy": ("1.6.0", None),
    "workerGroupSpecs[].priority": ("1.7.0", None),
    "headGroupSpec.ingressOptions": ("1.7.0", None),
    "networkPolicy": ("1.7.0", "RayClusterNetworkPolicy"),
    "tlsOptions": ("1.7.0", "RayClusterMTLS"),
    "historyServerOptions": ("1.7.0", "RayClusterHistoryServer"),
    "gcsFaultToleranceOptions.backend=rocksdb": ("1.7.0", "GCSFaultToleranceEmbeddedStorage"),
}


def refusal(body: Body, operator: Operator) -> str:
    with pytest.raises(BadSpec) as caught:
        check_supported(body, operator)
    return str(caught.value)


def test_the_matrix_is_all_tested() -> None:
    assert [needed.path for needed in MATRIX] == [path for path, _ in ASKING] == list(SINCE)


def test_a_plain_cluster_asks_for_nothing() -> None:
    assert requirements(body_of()) == []
    check_supported(body_of(), Operator("0.1.0", frozenset()))


@pytest.mark.parametrize(("path", "body"), ASKING)
def test_each_field_needs_its_version(path: str, body: Body) -> None:
    since, gate = SINCE[path]
    assert path in [needed.path for needed in requirements(body)]
    gates = frozenset({gate} if gate else ())
    check_supported(body, Operator("1.7.0", gates))
    check_supported(body, Operator("1.10.0", gates))
    major, minor, patch = map(int, since.split("."))
    older = f"{major}.{minor}.{patch - 1}" if patch else f"{major}.{minor - 1}.9"
    assert f"cluster 'dev': spec.{path} needs KubeRay {since}, and {older} runs; upgrade it, or drop the field" in refusal(
        body, Operator(older, gates)
    )


@pytest.mark.parametrize(("path", "body"), [item for item in ASKING if SINCE[item[0]][1]])
def test_a_gated_field_needs_its_gate(path: str, body: Body) -> None:
    gate = str(SINCE[path][1])
    check_supported(body, Operator("1.7.0", frozenset({gate, "Other"})))
    assert refusal(body, Operator("1.7.0", frozenset({"Other"}))) == (
        f"cluster 'dev': spec.{path} needs KubeRay's feature gate {gate}, which is off; "
        "turn it on (Helm: featureGates), or drop the field"
    )


def test_redis_needs_no_gate() -> None:
    check_supported(body_of(**REDIS), Operator("1.7.0", frozenset()))


def test_all_that_is_missing_is_named_at_once() -> None:
    text = refusal(overridden(tlsOptions={"a": 1}, networkPolicy={"a": 1}, upgradeStrategy={"type": "x"}), Operator("1.5.9"))
    assert [line.split(" needs")[0] for line in text.splitlines()] == [
        "cluster 'dev': spec.upgradeStrategy",
        "cluster 'dev': spec.networkPolicy",
        "cluster 'dev': spec.tlsOptions",
    ]


def test_what_is_not_known_of_the_operator_is_left_to_it() -> None:
    for _, body in ASKING:
        check_supported(body, Operator())
        check_supported(body, Operator("1.7.0", None))
    assert "tlsOptions" in refusal(overridden(tlsOptions={"a": 1}), Operator(None, frozenset()))


# The operator that runs


def deployment(image: str, *args: str, command: tuple[str, ...] = ("/manager",)) -> Body:
    """As KubeRay's chart renders it, as far as it is read."""
    container = {"name": "kuberay-operator", "image": image, "command": list(command), "args": list(args)}
    return {"kind": "Deployment", "spec": {"template": {"spec": {"containers": [container]}}}}


def test_version_and_gates_of_the_chart_s_deployment() -> None:
    chart = deployment(
        "quay.io/kuberay/operator:v1.7.0",
        "--log-stdout-encoder",
        "json",
        "--use-kubernetes-proxy=false",
        "--enable-leader-election=true",
        "--feature-gates=RayClusterStatusConditions=true,RayCronJob=false,RayClusterMTLS=True",
    )
    assert operator_of([chart]) == Operator("1.7.0", frozenset({"RayClusterStatusConditions", "RayClusterMTLS"}))


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("quay.io/kuberay/operator:v1.7.0", "1.7.0"),
        ("quay.io/kuberay/operator:1.7.0", "1.7.0"),
        ("quay.io/kuberay/operator:v1.7.0-rc.0", "1.7.0-rc.0"),
        ("quay.io/kuberay/operator:v1.7.0@sha256:" + "0a" * 32, "1.7.0"),
        ("quay.io/kuberay/operator@sha256:" + "1a" * 32, None),
        ("localhost:5000/kuberay/operator", None),
        ("localhost:5000/kuberay/operator:nightly", None),
        ("quay.io/kuberay/operator:7c3f9d2", None),
        ("quay.io/kuberay/operator", None),
    ],
)
def test_the_version_is_that_of_the_image_s_tag_if_it_is_one(image: str, version: str | None) -> None:
    assert operator_of([deployment(image)]).version == version


@pytest.mark.parametrize(
    ("args", "gates"),
    [
        ((), set()),
        (("--feature-gates=",), set()),
        (("--feature-gates=A=true",), {"A"}),
        (("-feature-gates=A=true,B=false",), {"A"}),
        (("--feature-gates", "A=true,B=false,C=true"), {"A", "C"}),
        (("--no-feature-gates=A=true", "--x"), set()),
    ],
)
def test_the_gates_are_those_of_the_arguments(args: tuple[str, ...], gates: set[str]) -> None:
    assert operator_of([deployment("operator:v1.7.0", *args)]).gates == frozenset(gates)
    assert operator_of([deployment("operator:v1.7.0", command=("/manager", *args))]).gates == frozenset(gates)


def test_no_deployment_is_an_operator_of_which_nothing_is_known() -> None:
    assert operator_of([]) == Operator(None, None)


@pytest.mark.parametrize(
    ("running", "enough"), [("1.7.0-rc.0", True), ("1.7", True), ("1.6", False), ("2.0.0", True), ("1.6.10", False)]
)
def test_versions_are_compared_as_numbers(running: str, enough: bool) -> None:
    body = overridden(headGroupSpec={"ingressOptions": {"host": "x"}})
    if enough:
        check_supported(body, Operator(running))
    else:
        assert f"and {running} runs" in refusal(body, Operator(running))


def test_what_makes_scheduled_runs_is_known_by_the_gate() -> None:
    known = [Operator("1.7.0", frozenset(gates)) for gates in ({"RayCronJob"}, {"RayClusterMTLS"}, set())]
    assert [schedule_kind(operator) for operator in (*known, Operator())] == ["RayCronJob", "CronJob", "CronJob", "CronJob"]


@pytest.mark.parametrize(("running", "enough"), [("1.7.0", True), ("1.8.1", True), (None, True), ("1.6.10", False)])
def test_declared_backfills_need_a_version(running: str | None, enough: bool) -> None:
    if enough:
        check_jobs_supported("a", Operator(running))
    else:
        with pytest.raises(BadSpec, match=rf"backfill 'a' needs KubeRay 1\.7\.0, and {running} runs"):
            check_jobs_supported("a", Operator(running))
