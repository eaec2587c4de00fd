"""Hypothesis strategies: specs of clusters as plain data, and the same with one thing broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from infra.secrets_in_specs import looks_secret
from infra.spec import KubeRayClusterSpec, has_token_authentication, parse_spec

Plain = dict[str, Any]

NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
LONG_NAMES = st.from_regex(r"[a-z][-a-z0-9]{48}[a-z0-9]", fullmatch=True)
SHORT_SUBDOMAINS = st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,8}\.[a-z0-9]{1,8})?", fullmatch=True)
SUBDOMAINS = SHORT_SUBDOMAINS | st.just("s" * 253)
LABEL_KEYS = (
    st.from_regex(r"([a-z][a-z0-9]{0,8}\.example\.com/)?[A-Za-z]([A-Za-z0-9_.-]{0,12}[A-Za-z0-9])?", fullmatch=True)
    | st.just("p" * 253 + "/" + "k" * 63)
)  # fmt: skip
LABEL_VALUES = st.from_regex(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,12}[A-Za-z0-9])?)?", fullmatch=True) | st.just("v" * 63)
# Hypothesis tries constants of the code under test too, and among them are secrets and references.
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], include_characters="\n\t"), max_size=20).filter(
    lambda text: "${env:" not in text and not looks_secret("", text)
)
LABELS = st.dictionaries(LABEL_KEYS, LABEL_VALUES, max_size=3)
ANNOTATIONS = st.dictionaries(LABEL_KEYS, TEXTS, max_size=2)
IMAGES = st.sampled_from(
    [
        "rayproject/ray:2.60.0-py311",
        "myregistry.example.com/my-custom-head-image:latest",
        "localhost:5000/team/ray_worker",
        "123456789012.dkr.ecr.us-east-1.amazonaws.com/ray:v1.2.3",
        "registry.example.com/ray@sha256:" + "0a" * 32,
    ]
)
GPU_RESOURCES = st.sampled_from(
    ["nvidia.com/gpu", "amd.com/gpu", "google.com/tpu", "nvidia.com/mig-1g.10gb", "habana.ai/gaudi", "nvidia.com/gpu.shared"]
)
ENV_NAMES = st.from_regex(r"[A-Z]{1,8}_(MODE|PATH|LEVEL|n\.1|b-2)", fullmatch=True) | st.just("HOME")
SECRET_KEYS = st.fixed_dictionaries({"secret": SUBDOMAINS, "key": st.sampled_from(["password", "auth_token", "a.b-c"])})
REFERENCES = st.sampled_from(["${env:AWS_ACCESS_KEY_ID}", "${env:HF_TOKEN}", "s3://${env:BUCKET}/x"])
ENV = st.dictionaries(ENV_NAMES, TEXTS | st.integers() | st.booleans() | SECRET_KEYS | REFERENCES, max_size=4)
COUNTS = st.integers(0, 200)

EFFECTS = st.sampled_from(["NoSchedule", "PreferNoSchedule", "NoExecute"])
TOLERATIONS = st.one_of(
    st.fixed_dictionaries({"operator": st.just("Exists")}, optional={"key": LABEL_KEYS, "effect": EFFECTS}),
    st.fixed_dictionaries({"key": LABEL_KEYS, "value": LABEL_VALUES}, optional={"operator": st.just("Equal"), "effect": EFFECTS}),
    st.fixed_dictionaries({"key": LABEL_KEYS, "operator": st.just("Exists"), "effect": st.just("NoExecute"),
                           "tolerationSeconds": COUNTS}),
)  # fmt: skip
SELECTORS = st.fixed_dictionaries({"matchLabels": st.dictionaries(LABEL_KEYS, LABEL_VALUES, min_size=1, max_size=2)})
EXPRESSIONS = st.fixed_dictionaries(
    {"key": LABEL_KEYS, "operator": st.sampled_from(["In", "NotIn"]), "values": st.lists(LABEL_VALUES, min_size=1, max_size=2)}
)
POD_TERMS = st.fixed_dictionaries({"topologyKey": st.just("kubernetes.io/hostname"), "labelSelector": SELECTORS})
NODE_TERMS = st.fixed_dictionaries({"matchExpressions": st.lists(EXPRESSIONS, min_size=1, max_size=2)})
NODES = st.fixed_dictionaries({"nodeSelectorTerms": st.lists(NODE_TERMS, min_size=1, max_size=2)})
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
AFFINITY = st.one_of(
    st.fixed_dictionaries({"nodeAffinity": st.fixed_dictionaries({REQUIRED: NODES})}),
    st.fixed_dictionaries({"podAntiAffinity": st.fixed_dictionaries({REQUIRED: st.lists(POD_TERMS, max_size=2)})}),
)
SPREAD = st.fixed_dictionaries(
    {
        "maxSkew": st.integers(1, 5),
        "topologyKey": st.sampled_from(["topology.kubernetes.io/zone", "kubernetes.io/hostname"]),
        "whenUnsatisfiable": st.sampled_from(["DoNotSchedule", "ScheduleAnyway"]),
        "labelSelector": SELECTORS,
    }
)
SOURCES = st.one_of(
    st.just({"emptyDir": {}}),
    st.just({"emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}),
    st.fixed_dictionaries({"persistentVolumeClaim": st.fixed_dictionaries({"claimName": SUBDOMAINS})}),
    st.fixed_dictionaries({"configMap": st.fixed_dictionaries({"name": SUBDOMAINS})}),
    st.just({"secret": {"secretName": "keys", "items": [{"key": "private-key", "path": "id"}]}}),
    st.just({"projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}]}}),
)
SECURITY = st.sampled_from([{"readOnlyRootFilesystem": True}, {"capabilities": {"add": ["SYS_PTRACE"]}}, {"runAsUser": 0}])
POD_SECURITY = st.sampled_from([{"fsGroupChangePolicy": "OnRootMismatch"}, {"runAsUser": 3000}, {"supplementalGroups": [1, 2]}])


@st.composite
def _sizes(draw: st.DrawFn, *, least_memory: int = 16) -> Plain:
    """Limits, and requests that are not more."""
    cpus, memory, disk = draw(st.integers(10, 64_000)), draw(st.integers(least_memory, 65_536)), draw(st.integers(1, 500))
    spelled = [f"{cpus}m", cpus / 1000, str(cpus / 1000)] + ([cpus // 1000] if cpus % 1000 == 0 else [])
    sizes: Plain = {
        "cpus": draw(st.sampled_from(spelled)),
        "memory": draw(st.sampled_from([f"{memory}Mi", memory * 2**20, f"{memory * 1024}Ki"])),
    }
    if draw(st.booleans()):
        sizes["ephemeral_storage"] = draw(st.sampled_from([f"{disk}Gi", f"{disk}G"]))
    if draw(st.booleans()):
        asked = {
            "cpus": f"{draw(st.integers(1, cpus))}m",
            "memory": f"{draw(st.integers(1, memory))}Mi",
            "ephemeral_storage": f"{draw(st.integers(1, 900))}M",
        }
        sizes["requests"] = {key: asked[key] for key in draw(st.sets(st.sampled_from(sorted(asked)), min_size=1))}
    return sizes


@st.composite
def _volumes(draw: st.DrawFn) -> Plain:
    names = draw(st.lists(NAMES.map(lambda name: f"v-{name}"), unique=True, min_size=1, max_size=3))
    paths = draw(st.lists(st.from_regex(r"/[a-z]{1,6}(/[a-z_.-]{1,6}[a-z])?", fullmatch=True), unique=True, max_size=3))
    options = st.fixed_dictionaries({}, optional={"read_only": st.booleans(), "sub_path": st.sampled_from(["a", "a/b"])})
    mounts = [{"name": draw(st.sampled_from(names)), "path": path, **draw(options)} for path in paths]
    return {"volumes": [{"name": name, **draw(SOURCES)} for name in names], "mounts": mounts}


def _group_overrides(container: str) -> st.SearchStrategy[Plain]:
    change = {"name": container, "tty": True, "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", "ray stop"]}}}}
    secret = {"name": "TOKEN_OF_JOB", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}}
    return st.sampled_from(
        [
            {"template": {"spec": {"terminationGracePeriodSeconds": 30, "nodeSelector": None}}},
            {"template": {"spec": {"containers": [change]}}},
            {"template": {"spec": {"containers": [{"name": "sidecar", "image": "busybox:1.37", "env": [secret]}]}}},
            {"template": {"spec": {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]}}},
            {"rayStartParams": {"object-store-memory": "200000000"}},
        ]
    )


def _group(container: str, **optional: st.SearchStrategy[Any]) -> st.SearchStrategy[Plain]:
    fields: dict[str, st.SearchStrategy[Any]] = {
        "image": IMAGES,
        "gpu_resource": GPU_RESOURCES,
        "service_account": SUBDOMAINS,
        "node_selector": LABELS,
        "tolerations": st.lists(TOLERATIONS, max_size=2),
        "labels": LABELS,
        "annotations": ANNOTATIONS,
        "env": ENV,
        "env_from_secrets": st.lists(SUBDOMAINS, max_size=2),
        "priority_class": SUBDOMAINS,
        "image_pull_secrets": st.lists(SUBDOMAINS, unique=True, max_size=2),
        "security_context": SECURITY,
        "pod_security_context": POD_SECURITY,
        "affinity": AFFINITY,
        "topology_spread": st.lists(SPREAD, max_size=1),
        "overrides": _group_overrides(container),
        "shared_memory": st.just("8Mi"),
        "arch": st.sampled_from(["amd64", "arm64"]),
        **optional,
    }
    parts = st.tuples(st.fixed_dictionaries({}, optional=fields), st.just({}) | _sizes(), st.just({}) | _volumes())
    return parts.map(lambda found: {**found[0], **found[1], **found[2]})


@st.composite
def _worker(draw: st.DrawFn, autoscaler: Plain) -> Plain:
    group = draw(_group("ray-worker"))
    if draw(st.booleans()):
        group = {**group, "kind": "gpu", "requests": {}, **draw(_sizes(least_memory=1024))}
        group |= {"gpus": draw(st.integers(1, 8))} if draw(st.booleans()) else {}
    if not autoscaler.get("enabled", True):
        return {**group, **({"replicas": draw(COUNTS)} if draw(st.booleans()) else {})}
    if draw(st.booleans()):
        least = draw(COUNTS)
        group |= {"min_replicas": least, "max_replicas": least + draw(COUNTS)}
    if autoscaler.get("version", "v2") == "v2" and draw(st.booleans()):
        group["idle_timeout_seconds"] = draw(COUNTS)
    return group


AUTOSCALERS = st.fixed_dictionaries(
    {},
    optional={
        "enabled": st.booleans(),
        "version": st.sampled_from(["v1", "v2"]),
        "idle_timeout_seconds": COUNTS,
        "upscaling_mode": st.sampled_from(["Default", "Aggressive", "Conservative"]),
        "cpus": st.sampled_from(["1", "500m", 0.25]),
        "memory": st.sampled_from(["512Mi", "1Gi"]),
        "requests": st.sampled_from([{"cpus": "100m"}, {"cpus": "200m", "memory": "128Mi"}]),
        "image": IMAGES,
    },
)
REDIS = st.fixed_dictionaries(
    {"redis_address": st.just("redis.example.com:6379")},
    optional={
        "backend": st.just("redis"),
        "redis_username": st.just("infill") | SECRET_KEYS,
        "redis_password": SECRET_KEYS,
        "external_storage_namespace": NAMES,
    },
)
ROCKSDB = st.fixed_dictionaries(
    {"backend": st.just("rocksdb")},
    optional={
        "storage": st.sampled_from([{"claim_name": "gcs"}, {"size": "1Gi"}, {"size": "5Gi", "storage_class": "standard"}, {}])
    },
)
POLICIES = st.fixed_dictionaries(
    {},
    optional={
        "from_namespaces": st.lists(NAMES, max_size=2),
        "from_blocks": st.lists(st.sampled_from(["10.0.0.0/8", "192.168.7.1/32", "fd00::/8", "0.0.0.0/0"]), max_size=2),
    },
)
SCHEDULERS = st.fixed_dictionaries(
    {"name": st.sampled_from(["kueue", "volcano", "yunikorn"]), "queue": LABEL_VALUES.filter(bool)},
    optional={"priority_class": SHORT_SUBDOMAINS},
)
ACCESS = st.one_of(
    st.fixed_dictionaries({}, optional={"kubeconfig": st.just("~/.kube/other"), "context": NAMES}),
    st.just({"config_method": "EKS_AUTH", "aws_config": {"region": "us-east-1", "role": "ops", "cluster_name": "prod"}}),
    st.just({"config_method": "IN_CLUSTER"}),
)
OVERRIDES = st.sampled_from(
    [
        {"spec": {"headServiceAnnotations": {"example.com/a": "b"}}},
        {"spec": {"headGroupSpec": {"serviceType": "NodePort"}}},
        {"spec": {"upgradeStrategy": {"type": "None"}}},
        {"metadata": {"annotations": {"example.com/owner": "ana"}}},
    ]
)
KWARGS = st.fixed_dictionaries(
    {"runtime_env": st.fixed_dictionaries({"env_vars": st.dictionaries(ENV_NAMES, TEXTS | REFERENCES, max_size=2)})},
    optional={"log_to_driver": st.booleans()},
)


@st.composite
def plain_specs(draw: st.DrawFn) -> Plain:
    """A spec of kind kuberay as YAML may hold it; all fields, each often absent."""
    strategy = draw(st.none() | st.sampled_from(["Recreate", "None", "NewCluster"]))
    fields = {
        "namespace": NAMES,
        "ray_version": st.sampled_from(["2.60.0", "2.52.0", "2.51.2", "2.9.3"]),
        "python_version": st.sampled_from(["3.10", "3.11", "3.13"]),
        "head_group": _group("ray-head", gpus=st.integers(0, 2)),
        "autoscaler": AUTOSCALERS,
        "gcs_fault_tolerance": REDIS | ROCKSDB,
        "network_policy": POLICIES,
        "scheduler": SCHEDULERS,
        "suspend": st.booleans(),
        "protect": st.booleans(),
        "ready_timeout_seconds": st.integers(1, 3600),
        "unschedulable_seconds": COUNTS,
        "labels": LABELS,
        "annotations": ANNOTATIONS,
        "overrides": OVERRIDES,
        "ray_init_kwargs": KWARGS,
        "kind": st.just("kuberay"),
    }
    name = draw(NAMES if strategy == "NewCluster" else NAMES | LONG_NAMES)
    spec = {"name": name, **draw(st.fixed_dictionaries({}, optional=fields)), **draw(ACCESS)}
    if strategy:
        spec["upgrade_strategy"] = strategy
    if draw(st.booleans()):
        spec["token_authentication"] = draw(st.booleans()) and has_token_authentication(spec.get("ray_version", "2.60.0"))
    if draw(st.booleans()):
        groups = draw(st.lists(_worker(spec.get("autoscaler", {})), max_size=3))
        for number, group in enumerate(groups):
            if draw(st.booleans()):
                group["name"] = draw(st.sampled_from([f"{draw(NAMES)}{number}", f"{number}".ljust(50, "g")]))
        spec["worker_groups"] = groups
    return spec


def specs() -> st.SearchStrategy[KubeRayClusterSpec]:
    return plain_specs().map(parsed)


def parsed(plain: Plain) -> KubeRayClusterSpec:
    spec = parse_spec(plain)
    assert isinstance(spec, KubeRayClusterSpec)
    return spec


def collected(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """`count` values, the same in every run of the same code."""
    found: list[Any] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    collect: Callable[[], None]
    collect()
    return found
