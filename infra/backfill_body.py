"""A declared backfill as resources of Kubernetes: a RayJob, or a schedule that makes RayJobs. Pure functions.

For KubeRay 1.7.0; what its operator takes is in ray-operator/controllers/ray/utils/validation.go, and what it does with it in
ray-operator/controllers/ray/rayjob_controller.go.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infra import labels
from infra.backfill_spec import BackfillSpec
from infra.body import API_VERSION, network_policy_body, ray_cluster_body
from infra.parts import UpgradeStrategy
from infra.secrets_in_specs import OPTION_VARIABLE
from infra.spec import KubeRayClusterSpec, parse_spec

_WHERE_KUBERNETES_IS = ("config_method", "kubeconfig", "context", "aws_config")


@dataclass(frozen=True)
class Driver:
    """What a run starts on the head of its cluster.

    Attributes:
        entrypoint: a command of the shell.
        runtime_env: Ray's, of the job. Whoever reaches the dashboard can read it.
        environment: what workers run in, as it is declared; a change of it is a change of the backfill. What is uploaded of the
            code is not part of it: a commit elsewhere in the repository is no reason to run again.
    """

    entrypoint: str
    runtime_env: Mapping[str, Any]
    environment: Mapping[str, Any] = field(default_factory=dict)


def run_name(spec: BackfillSpec, cluster: KubeRayClusterSpec, driver: Driver) -> str:
    """Name of the one run of a declaration. Another declaration has another one, and the same always the same."""
    declared = {key: value for key, value in spec.plain().items() if key != "suspend"}
    shape = {key: value for key, value in cluster.plain().items() if key not in _WHERE_KUBERNETES_IS}
    parts = [declared, cluster.name if spec.standing else shape, dict(driver.environment)]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{spec.name}-{digest[:8]}"


def own_cluster(spec: BackfillSpec, cluster: KubeRayClusterSpec) -> KubeRayClusterSpec:
    """The cluster that each run has for itself: of the shape of `cluster`, and its head knows the secret storage options."""
    plain = cluster.plain()
    head = plain.setdefault("head_group", {})
    secrets = spec.plain().get("storage_options", {})
    options = {f"{OPTION_VARIABLE}{name.upper()}": secrets[name] for name in spec.secret_options}
    if options:
        head["env"] = {**head.get("env", {}), **options}
    fixed = {"name": f"{spec.name}-run", "upgrade_strategy": UpgradeStrategy.RECREATE.value, "suspend": False, "protect": False}
    found = parse_spec({**plain, **fixed}, f"backfill {spec.name!r}: cluster {cluster.name!r}")
    assert isinstance(found, KubeRayClusterSpec)
    return found


def ray_job_body(spec: BackfillSpec, cluster: KubeRayClusterSpec, driver: Driver) -> dict[str, Any]:
    """The RayJob of a backfill without a schedule. Same declaration, same name."""
    made = ray_job_spec(spec, cluster, driver)
    if spec.suspend:
        made["suspend"] = True
    return {
        "apiVersion": API_VERSION,
        "kind": "RayJob",
        "metadata": metadata(spec, cluster, run_name(spec, cluster, driver)),
        "spec": made,
    }


def ray_cron_job_body(spec: BackfillSpec, cluster: KubeRayClusterSpec, driver: Driver) -> dict[str, Any]:
    """The RayCronJob of a schedule; KubeRay has it behind the feature gate RayCronJob."""
    body: dict[str, Any] = {
        "schedule": spec.schedule,
        "timeZone": spec.time_zone,
        "jobTemplate": ray_job_spec(spec, cluster, driver),
    }
    if spec.suspend:
        body["suspend"] = True
    return {"apiVersion": API_VERSION, "kind": "RayCronJob", "metadata": metadata(spec, cluster, spec.name), "spec": body}


def metadata(spec: BackfillSpec, cluster: KubeRayClusterSpec, name: str) -> dict[str, Any]:
    """Name, namespace and labels of a resource of a backfill; a batch scheduler's labels are among them."""
    given = {} if spec.standing else ray_cluster_body(cluster)["metadata"]["labels"]
    kept = {key: value for key, value in given.items() if key != labels.CLUSTER}
    return {"name": name, "namespace": cluster.namespace, "labels": {**kept, **labels.owned(), labels.BACKFILL: spec.name}}


def own_resources(spec: BackfillSpec, cluster: KubeRayClusterSpec) -> list[dict[str, Any]]:
    """What goes with a run's own cluster, but for the Secret of `infra.body.env_secret_data`."""
    if spec.standing or cluster.network_policy is None:
        return []
    return [network_policy_body(own_cluster(spec, cluster))]


def ray_job_spec(spec: BackfillSpec, cluster: KubeRayClusterSpec, driver: Driver) -> dict[str, Any]:
    """The spec of a RayJob, of one run or of each that a schedule makes."""
    made: dict[str, Any] = {
        # The operator submits it by itself: without a pod that waits, and again where the head has started anew.
        "submissionMode": "HTTPMode",
        "entrypoint": driver.entrypoint,
        "runtimeEnvYAML": json.dumps(dict(driver.runtime_env), indent=1, ensure_ascii=False),  # JSON is YAML
    }
    if spec.active_deadline_seconds is not None:
        made["activeDeadlineSeconds"] = spec.active_deadline_seconds
    if spec.standing:
        return {**made, "clusterSelector": {labels.RAY_CLUSTER: ray_cluster_body(cluster)["metadata"]["name"]}}
    if spec.backoff_limit:
        made["backoffLimit"] = spec.backoff_limit
    made["preRunningDeadlineSeconds"] = cluster.ready_timeout_seconds
    made["rayClusterSpec"] = ray_cluster_body(own_cluster(spec, cluster))["spec"]
    return {**made, **(_ends_in_history(spec) if spec.schedule else _ends(spec))}


def _ends(spec: BackfillSpec) -> dict[str, Any]:
    """What becomes of the own cluster of a run that Pulumi owns. Its RayJob stays: without it Pulumi would make the run again."""
    if spec.on_exit == "DELETE":
        # Of deletion rules there is none for a job that was stopped, and with them KubeRay refuses to suspend.
        return {"shutdownAfterJobFinishes": True}
    if spec.on_exit == "RETAIN_ON_FAILURE":
        return {"deletionStrategy": {"deletionRules": [_rule("DeleteCluster", _SUCCEEDED, 0)]}}
    return {}


def _ends_in_history(spec: BackfillSpec) -> dict[str, Any]:
    """The same of a run that a schedule makes, which goes by itself after a while."""
    rules = []
    for condition, deleted in ((_SUCCEEDED, spec.on_exit != "RETAIN"), (_FAILED, spec.on_exit == "DELETE")):
        rules += [_rule("DeleteCluster", condition, 0)] if deleted else []
        rules.append(_rule("DeleteSelf", condition, spec.history_seconds))
    return {"deletionStrategy": {"deletionRules": rules}}


_SUCCEEDED = {"jobStatus": "SUCCEEDED"}
# Of the deployment, not of the job: a run whose cluster never came, or that took too long, has failed too.
_FAILED = {"jobDeploymentStatus": "Failed"}


def _rule(policy: str, condition: Mapping[str, str], seconds: int) -> dict[str, Any]:
    return {"policy": policy, "condition": {**condition, "ttlSeconds": seconds}}
