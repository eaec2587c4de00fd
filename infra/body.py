"""`ray_cluster_body`: a spec as the RayCluster resource of KubeRay, and the objects that go with it. Pure functions."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from infra import labels
from infra.groups import HOME, Group, Requests, SecretKey, WorkerGroup
from infra.overrides import merged
from infra.parts import AutoscalerOptions, GcsFaultTolerance, UpgradeStrategy
from infra.secrets_in_specs import resolved, variables
from infra.spec import HASH_LENGTH, KubeRayClusterSpec

API_VERSION = "ray.io/v1"
HEAD_GRACE_SECONDS = 3
"""The head ends in a second; the autoscaler beside it, process 1 of its container, hears no SIGTERM and is killed after this."""
PORTS = {"gcs-server": 6379, "dashboard": 8265, "client": 10001}
METRICS_PORT = 8080

# https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
CONTAINER_SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
# uid and gid of Ray's images.
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 100,
    "fsGroup": 100,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def ray_cluster_body(spec: KubeRayClusterSpec) -> dict[str, Any]:
    """The RayCluster resource of a spec, for KubeRay 1.7 and the Ray version of the spec.

    Same spec, same body. No secret is in it: `${env:NAME}` becomes a reference to the Secret that `env_secret_body` makes.
    """
    head = _head_group(spec)
    workers = [_worker_group(spec, group) for group in spec.worker_groups]
    cluster: dict[str, Any] = {
        "rayVersion": spec.ray,
        "enableInTreeAutoscaling": spec.autoscaler.enabled,
        "headGroupSpec": head,
        "workerGroupSpecs": workers,
    }
    if spec.autoscaler.enabled:
        cluster["autoscalerOptions"] = _autoscaler(spec.autoscaler)
    if spec.has_token:
        cluster["authOptions"] = {"mode": "token"}
    if spec.gcs_fault_tolerance:
        cluster["gcsFaultToleranceOptions"] = _gcs(spec.gcs_fault_tolerance)
    if spec.suspend:
        cluster["suspend"] = True
    metadata: dict[str, Any] = {
        "name": spec.name,
        "namespace": spec.namespace,
        "labels": {**labels.owned(spec.name), **_scheduler_labels(spec), **spec.labels},
    }
    if spec.annotations:
        metadata["annotations"] = dict(spec.annotations)
    body: dict[str, Any] = {"apiVersion": API_VERSION, "kind": "RayCluster", "metadata": metadata, "spec": cluster}
    body = dict(merged(body, spec.overrides))
    _stamp(body["spec"])
    if spec.upgrade_strategy is UpgradeStrategy.NEW_CLUSTER:
        body["metadata"]["name"] = f"{spec.name}-{_generation(body['spec'])}"
    return body


def resources(spec: KubeRayClusterSpec, operator_namespace: str | None = None) -> list[dict[str, Any]]:
    """Every resource that a spec becomes, but for the Secret of `env_secret_data`.

    Args:
        operator_namespace: where KubeRay's operator is, for the NetworkPolicy. Default: it may be in any.
    """
    body = ray_cluster_body(spec)
    found = [body]
    if spec.network_policy:
        found.append(network_policy_body(spec, operator_namespace))
    if spec.upgrade_strategy is UpgradeStrategy.NEW_CLUSTER:
        found.append(alias_service_body(spec, body["metadata"]["name"]))
    return found


def head_service_name(cluster: str) -> str:
    """The Service that KubeRay makes for a RayCluster's head; under NewCluster, ours of the same form."""
    return f"{cluster}-head-svc"


def template_hashes(body: dict[str, Any]) -> dict[str, str]:
    """What the pods of each group are made from, by KubeRay's name of the group."""
    groups = {labels.HEAD_GROUP: body["spec"]["headGroupSpec"]}
    groups |= {group["groupName"]: group for group in body["spec"].get("workerGroupSpecs", [])}
    return {
        name: group["template"].get("metadata", {}).get("annotations", {}).get(labels.TEMPLATE_HASH, "")
        for name, group in groups.items()
    }


def env_secret_name(spec: KubeRayClusterSpec) -> str:
    return f"{spec.name}-env"


def env_secret_variables(spec: KubeRayClusterSpec) -> list[str]:
    """Names of the variables that pods take from the environment of whoever provisions the cluster."""
    return sorted({name for group in spec.groups().values() for name in variables(list(group.env.values()))})


def env_secret_data(spec: KubeRayClusterSpec) -> dict[str, str]:
    """What the Secret holds: each variable of the groups whose value has a reference, resolved. Never store it.

    Raises:
        BadSpec: a variable is not set here.
    """
    return {
        _env_secret_key(name, variable): resolved(value)
        for name, group in spec.groups().items()
        for variable, value in group.env.items()
        if isinstance(value, str) and list(variables(value))
    }


def alias_service_body(spec: KubeRayClusterSpec, cluster: str) -> dict[str, Any]:
    """The Service under the spec's own name that leads to the head of `cluster`, for NewCluster."""
    ports = [{"name": name, "port": port, "targetPort": port} for name, port in PORTS.items()]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": head_service_name(spec.name), "namespace": spec.namespace, "labels": labels.owned(spec.name)},
        "spec": {"selector": {labels.RAY_CLUSTER: cluster, labels.RAY_NODE_TYPE: "head"}, "ports": ports},
    }


def network_policy_body(spec: KubeRayClusterSpec, operator_namespace: str | None = None) -> dict[str, Any]:
    """The NetworkPolicy of a spec that has one: all that comes in is dropped, but from its own pods and from those it names."""
    policy = spec.network_policy
    assert policy is not None
    own = {"podSelector": {"matchLabels": {labels.CLUSTER: spec.name}}}
    peers: list[dict[str, Any]] = [_namespace_peer(name) for name in policy.from_namespaces]
    peers += [{"ipBlock": {"cidr": block}} for block in policy.from_blocks]
    operator = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}}
    operator["namespaceSelector"] = _namespace_peer(operator_namespace)["namespaceSelector"] if operator_namespace else {}
    ports = [{"protocol": "TCP", "port": port} for port in (*PORTS.values(), METRICS_PORT)]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": spec.name, "namespace": spec.namespace, "labels": labels.owned(spec.name)},
        "spec": {
            "podSelector": own["podSelector"],
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [own]}, {"from": [operator, *peers], "ports": ports}],
        },
    }


def _namespace_peer(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _head_group(spec: KubeRayClusterSpec) -> dict[str, Any]:
    group = spec.head_group
    params = {"num-cpus": "0", **({"num-gpus": "0"} if group.gpus else {})}
    ports = [{"name": name, "containerPort": port} for name, port in PORTS.items()]
    template = _template(spec, "head", group, "ray-head", ports)
    template["spec"]["terminationGracePeriodSeconds"] = HEAD_GRACE_SECONDS
    rendered = {"rayStartParams": params, "template": template}
    return dict(merged(rendered, group.overrides))


def _worker_group(spec: KubeRayClusterSpec, group: WorkerGroup) -> dict[str, Any]:
    assert group.name is not None
    rendered: dict[str, Any] = {"groupName": group.name}
    if spec.autoscaler.enabled:  # `replicas` is the autoscaler's
        rendered |= {"minReplicas": group.min_replicas, "maxReplicas": group.max_replicas}
    else:
        replicas = 1 if group.replicas is None else group.replicas
        rendered |= {"replicas": replicas, "minReplicas": replicas, "maxReplicas": replicas}
    if group.idle_timeout_seconds is not None:
        rendered["idleTimeoutSeconds"] = group.idle_timeout_seconds
    # KubeRay counts accelerators itself where the resource's name ends in "gpu" or "tpu"; a MIG slice's does not.
    counted = group.gpu_resource.endswith(("gpu", "tpu"))
    rendered["rayStartParams"] = {"num-gpus": str(group.gpus)} if group.gpus and not counted else {}
    rendered["template"] = _template(spec, group.name, group, "ray-worker", [])
    return dict(merged(rendered, group.overrides))


def _template(spec: KubeRayClusterSpec, name: str, group: Group, container: str, ports: list[dict[str, Any]]) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [{"name": "home", "emptyDir": {}}, *group.volumes]
    mounts: list[dict[str, Any]] = [{"name": "home", "mountPath": HOME}]
    for mount in group.mounts:
        options = {**({"readOnly": True} if mount.read_only else {}), **({"subPath": mount.sub_path} if mount.sub_path else {})}
        mounts.append({"name": mount.name, "mountPath": mount.path, **options})
    if group.shared_memory:
        volumes.append({"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": group.shared_memory}})
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})
    ray = {
        "name": container,
        "image": spec.image_of(group),
        "imagePullPolicy": "IfNotPresent",
        "env": _env(spec, name, group),
        "resources": _resources(group),
        "securityContext": merged(CONTAINER_SECURITY, group.security_context),
        "terminationMessagePolicy": "FallbackToLogsOnError",  # a crash tells its last lines, here and in `kubectl describe`
        "volumeMounts": mounts,
    }
    if ports:
        ray["ports"] = ports
    if group.env_from_secrets:
        ray["envFrom"] = [{"secretRef": {"name": secret}} for secret in group.env_from_secrets]
    pod: dict[str, Any] = {
        "containers": [ray],
        "nodeSelector": {"kubernetes.io/arch": group.arch, **group.node_selector},
        "securityContext": merged(POD_SECURITY, group.pod_security_context),
        "volumes": volumes,
    }
    optional = {
        "affinity": group.affinity,
        "imagePullSecrets": [{"name": secret} for secret in group.image_pull_secrets],
        "priorityClassName": group.priority_class,
        "serviceAccountName": group.service_account,
        "tolerations": group.tolerations,
        "topologySpreadConstraints": group.topology_spread,
    }
    pod |= {key: value for key, value in optional.items() if value}
    metadata: dict[str, Any] = {"labels": {**labels.owned(spec.name), **group.labels}}
    if group.annotations:
        metadata["annotations"] = dict(group.annotations)
    return {"metadata": metadata, "spec": pod}


def _env(spec: KubeRayClusterSpec, name: str, group: Group) -> list[dict[str, Any]]:
    env: list[dict[str, Any]] = [] if "HOME" in group.env else [{"name": "HOME", "value": HOME}]
    for variable, value in group.env.items():
        if isinstance(value, SecretKey):
            env.append({"name": variable, "valueFrom": _secret_ref(value)})
        elif list(variables(value)):
            key = SecretKey(secret=env_secret_name(spec), key=_env_secret_key(name, variable))
            env.append({"name": variable, "valueFrom": _secret_ref(key)})
        else:
            env.append({"name": variable, "value": value})
    return env


def _env_secret_key(group: str, variable: str) -> str:
    return f"{group}.{variable}"


def _secret_ref(key: SecretKey) -> dict[str, Any]:
    return {"secretKeyRef": {"name": key.secret, "key": key.key}}


def _resources(group: Group) -> dict[str, Any]:
    limits = {"cpu": group.cpus, "memory": group.memory}
    if group.ephemeral_storage:
        limits["ephemeral-storage"] = group.ephemeral_storage
    accelerators = {group.gpu_resource: str(group.gpus)} if group.gpus else {}
    return {"limits": {**limits, **accelerators}, "requests": {**_requests(limits, group.requests), **accelerators}}


def _requests(limits: dict[str, str], given: Requests | None) -> dict[str, str]:
    if given is None:
        return dict(limits)
    apart = {"cpu": given.cpus, "memory": given.memory, "ephemeral-storage": given.ephemeral_storage}
    return {**limits, **{key: value for key, value in apart.items() if value}}


def _autoscaler(options: AutoscalerOptions) -> dict[str, Any]:
    limits = {"cpu": options.cpus, "memory": options.memory}
    rendered: dict[str, Any] = {
        "version": options.version,
        "idleTimeoutSeconds": options.idle_timeout_seconds,
        "upscalingMode": options.upscaling_mode,
        "resources": {"limits": limits, "requests": _requests(limits, options.requests)},
        "securityContext": dict(CONTAINER_SECURITY),
    }
    return {**rendered, **({"image": options.image} if options.image else {})}


def _gcs(options: GcsFaultTolerance) -> dict[str, Any]:
    if options.backend == "rocksdb":
        storage = options.storage
        claim = {} if storage is None else {
            "claimName": storage.claim_name, "size": storage.size, "storageClassName": storage.storage_class,
        }  # fmt: skip
        return {"backend": "rocksdb", "storage": {key: value for key, value in claim.items() if value}}
    rendered: dict[str, Any] = {"redisAddress": options.redis_address}
    for key, value in (("redisUsername", options.redis_username), ("redisPassword", options.redis_password)):
        if value is not None:
            rendered[key] = {"valueFrom": _secret_ref(value)} if isinstance(value, SecretKey) else {"value": value}
    if options.external_storage_namespace:
        rendered["externalStorageNamespace"] = options.external_storage_namespace
    return rendered


def _scheduler_labels(spec: KubeRayClusterSpec) -> dict[str, str]:
    scheduler = spec.scheduler
    if scheduler is None:
        return {}
    # https://docs.ray.io/en/latest/cluster/kubernetes/k8s-ecosystem.html
    if scheduler.name == "kueue":
        found = {"kueue.x-k8s.io/queue-name": scheduler.queue}
        return {**found, **({"kueue.x-k8s.io/priority-class": scheduler.priority_class} if scheduler.priority_class else {})}
    queue = {"volcano": "volcano.sh/queue-name", "yunikorn": "yunikorn.apache.org/queue"}[scheduler.name]
    found = {"ray.io/scheduler-name": scheduler.name, queue: scheduler.queue}
    return {**found, **({"ray.io/priority-class-name": scheduler.priority_class} if scheduler.priority_class else {})}


def _stamp(cluster: dict[str, Any]) -> None:
    """Write on each pod template what it is made from, so that `up` finds the pods that a change left behind."""
    shared = {"rayVersion": cluster.get("rayVersion"), "authOptions": cluster.get("authOptions")}
    head_only = {key: cluster.get(key) for key in ("enableInTreeAutoscaling", "autoscalerOptions", "gcsFaultToleranceOptions")}
    for group in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])):
        made_of = {**shared, "template": group.setdefault("template", {}), "rayStartParams": group.get("rayStartParams", {})}
        if group is cluster["headGroupSpec"]:
            made_of |= head_only
        annotations = group["template"].setdefault("metadata", {}).setdefault("annotations", {})
        annotations[labels.TEMPLATE_HASH] = _digest(made_of)


def _generation(cluster: dict[str, Any]) -> str:
    """Changes with anything but the bounds of the groups."""
    movable = {"replicas", "minReplicas", "maxReplicas"}
    given = cluster.get("workerGroupSpecs", [])
    groups = [{key: value for key, value in group.items() if key not in movable} for group in given]
    return _digest({**cluster, "workerGroupSpecs": groups})[:HASH_LENGTH]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]
