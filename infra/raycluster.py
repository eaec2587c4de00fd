"""`RayCluster`: the Pulumi component of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

from infra import labels
from infra.body import (
    alias_service_body,
    env_secret_data,
    env_secret_name,
    env_secret_variables,
    head_service_name,
    network_policy_body,
    ray_cluster_body,
)
from infra.changes import declared_replicas, differences
from infra.errors import BadSpec, InfraError
from infra.gate import drain, inspect
from infra.kube import Access, Kubernetes, access_of, run, run_async
from infra.live import LiveCluster
from infra.operator import KubeRayOperator
from infra.parts import UpgradeStrategy
from infra.provider import owned_here, stack_label
from infra.spec import KubeRayClusterSpec, parse_spec
from infra.support import check_supported
from infra.wait import wait_ready

TYPE = "infill:kubernetes:RayCluster"


@dataclass
class RayClusterArgs:
    """What a `RayCluster` is made from.

    Attributes:
        spec: the cluster; a mapping as YAML holds it will do.
        wait: whether `pulumi up` looks at the running cluster, before a change and until it serves. Without it the component
            only declares.
        force: make a change that ends pods even while jobs run.
        adopt: take over a RayCluster of that name that the stack has not made; the provider needs ``upsert_existing_objects``,
            which `kubernetes_provider` sets.
        operator: the operator that the same program declares. Default: the one that runs already.
        owner: an ownerReference for all that is declared: what Kubernetes deletes once its owner is gone.
        env_secret: declare the Secret of `infra.body.env_secret_data`. Without it whoever declares the cluster makes it elsewhere,
            where its values must not be in Pulumi's state even encrypted.
    """

    spec: KubeRayClusterSpec | Mapping[str, Any]
    wait: bool = True
    force: bool = False
    adopt: bool = False
    operator: KubeRayOperator | None = None
    owner: Mapping[str, Any] | None = None
    env_secret: bool = True


class RayCluster(pulumi.ComponentResource):
    """A Ray cluster that KubeRay runs.

    Outputs become known when the cluster serves; `pulumi up` fails with Kubernetes' own words when it cannot.

    Raises:
        pulumi.RunError: the spec is wrong or cannot be provisioned, a change would end jobs that run, or Kubernetes refuses.
    """

    cluster_name: pulumi.Output[str]
    """Of the RayCluster; the spec's name, with a hash under the upgrade strategy NewCluster."""
    namespace: pulumi.Output[str]
    head_service: pulumi.Output[str]
    ray_address: pulumi.Output[str]
    """``ray://...:10001``, within Kubernetes."""
    dashboard_url: pulumi.Output[str]
    """``http://...:8265``, within Kubernetes: dashboard and Jobs API."""
    token_secret: pulumi.Output[str | None]
    """Name of the Secret whose key ``auth_token`` holds the token; None without token authentication."""
    spec_hash: pulumi.Output[str]

    def __init__(self, name: str, args: RayClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, {}, opts)
        try:
            self._declare_all(name, args)
        except InfraError as exc:  # which Pulumi prints without a traceback
            raise pulumi.RunError(str(exc)) from exc

    def _declare_all(self, name: str, args: RayClusterArgs) -> None:
        self._args = args
        self._spec = _kuberay(args.spec)
        self._spec.check_provisionable()
        if args.adopt and self._spec.upgrade_strategy is UpgradeStrategy.NEW_CLUSTER:
            # The new one may have the name of one that waits for its deletion, which would then take the adopted one along.
            raise BadSpec(f"cluster {self._spec.name!r}: adopt goes with upgrade_strategy Recreate or None; change it afterwards")
        self._access = access_of(self._spec) if args.wait else None
        body = ray_cluster_body(self._spec)
        live = self._inspect(body)
        steady = live is not None and live.name == body["metadata"]["name"] and not differences(self._spec, live.body)
        if live is not None and not steady and live.name == body["metadata"]["name"]:
            declared_replicas(body, live.body)
        before = [*self._declare_env_secret(name), *self._declare_network_policy(name)]
        before += [args.operator] if args.operator else []
        resource = self._declare(name, body, steady, before)
        served: pulumi.Output[str] = resource.id.apply(lambda _: self._wait(body))
        self._set_outputs(body, self._declare_alias(name, body, served))

    def _inspect(self, body: dict[str, Any]) -> LiveCluster | None:
        """The cluster that runs now, after saying, or refusing, what a change does to it."""
        operator = self._args.operator.operator if self._args.operator else None
        if operator is not None:
            check_supported(body, operator)
        if self._access is None:
            return None
        may_end_jobs = self._args.force or pulumi.runtime.is_dry_run()
        return run(
            inspect(
                self._access,
                self._spec,
                operator,
                stack=stack_label(),
                adopt=self._args.adopt,
                may_end_jobs=may_end_jobs,
                say=pulumi.log.info,
                warn=pulumi.log.warn,
            )
        )

    def _declare(
        self, name: str, body: dict[str, Any], steady: bool, before: list[pulumi.Resource]
    ) -> kubernetes.apiextensions.CustomResource:
        metadata = dict(body["metadata"])
        # Its own events are all that the provider's wait sees; patchForce takes the groups back from the autoscaler's patch.
        metadata["annotations"] = {
            **metadata.get("annotations", {}),
            "pulumi.com/skipAwait": "true",
            "pulumi.com/patchForce": "true",
        }
        metadata["labels"] = {**metadata["labels"], labels.STACK: stack_label()}
        metadata |= self._owned()
        options = pulumi.ResourceOptions(
            parent=self,
            depends_on=before,
            protect=self._spec.protect or None,
            # What an earlier change wrote of the autoscaler's number stays as it was written.
            ignore_changes=["spec.workerGroupSpecs[*].replicas"] if steady and self._spec.autoscaler.enabled else None,
            custom_timeouts=pulumi.CustomTimeouts(delete="10m"),
        )
        return kubernetes.apiextensions.CustomResource(
            name, api_version=body["apiVersion"], kind=body["kind"], metadata=metadata, spec=body["spec"], opts=options
        )

    def _owned(self) -> dict[str, Any]:
        return {"ownerReferences": [dict(self._args.owner)]} if self._args.owner else {}

    def _declare_env_secret(self, name: str) -> list[pulumi.Resource]:
        """The Secret of the variables that pods take from the environment of whoever runs Pulumi."""
        if not self._args.env_secret or not env_secret_variables(self._spec):
            return []
        metadata: Any = {
            "name": env_secret_name(self._spec),
            "namespace": self._spec.namespace,
            "labels": owned_here(self._spec.name),
            **self._owned(),
        }
        data = pulumi.Output.secret(env_secret_data(self._spec))
        return [
            kubernetes.core.v1.Secret(f"{name}-env", metadata=metadata, string_data=data, opts=pulumi.ResourceOptions(parent=self))
        ]

    def _declare_network_policy(self, name: str) -> list[pulumi.Resource]:
        if self._spec.network_policy is None:
            return []
        operator = self._args.operator
        policy = network_policy_body(self._spec, operator.namespace_name if operator else None)
        metadata: Any = {**policy["metadata"], "labels": owned_here(self._spec.name), **self._owned()}
        opts = pulumi.ResourceOptions(parent=self)
        return [kubernetes.networking.v1.NetworkPolicy(name, metadata=metadata, spec=policy["spec"], opts=opts)]

    def _declare_alias(self, name: str, body: dict[str, Any], served: pulumi.Output[str]) -> pulumi.Output[str]:
        """Under NewCluster: the Service that goes over to the new cluster once it serves; then the old one's jobs may end."""
        if self._spec.upgrade_strategy is not UpgradeStrategy.NEW_CLUSTER:
            return served
        alias = alias_service_body(self._spec, body["metadata"]["name"])
        selector: dict[str, Any] = {**alias["spec"]["selector"], labels.RAY_CLUSTER: served}
        metadata: Any = {
            **alias["metadata"],
            "labels": owned_here(self._spec.name),
            "annotations": {"pulumi.com/skipAwait": "true"},
            **self._owned(),
        }
        service_spec: Any = {**alias["spec"], "selector": selector}
        service = kubernetes.core.v1.Service(
            f"{name}-head",
            metadata=metadata,
            spec=service_spec,
            opts=pulumi.ResourceOptions(parent=self),
        )
        return pulumi.Output.all(served, service.id).apply(lambda known: self._drain(str(known[0])))

    async def _wait(self, body: dict[str, Any]) -> str:
        cluster = str(body["metadata"]["name"])
        if self._access is not None and not pulumi.runtime.is_dry_run():
            await _guarded(_wait_ready(self._access, self._spec, body))
        return cluster

    async def _drain(self, cluster: str) -> str:
        if self._access is not None and not pulumi.runtime.is_dry_run():
            await _guarded(drain(self._access, self._spec, cluster, say=pulumi.log.info))
        return cluster

    def _set_outputs(self, body: dict[str, Any], served: pulumi.Output[str]) -> None:
        spec = self._spec
        service = head_service_name(spec.name)
        host = f"{service}.{spec.namespace}.svc"
        token = str(body["spec"].get("authOptions", {}).get("secretName") or body["metadata"]["name"]) if spec.has_token else None
        outputs: dict[str, Any] = {
            "cluster_name": body["metadata"]["name"],
            "namespace": spec.namespace,
            "head_service": service,
            "ray_address": f"ray://{host}:10001",
            "dashboard_url": f"http://{host}:8265",
            "token_secret": token,
            "spec_hash": spec.spec_hash(),
        }
        for key, value in outputs.items():
            setattr(self, key, served.apply(partial(_second, value)))
        self.outputs = {key: getattr(self, key) for key in outputs}
        self.register_outputs(self.outputs)


def _second(value: Any, _served: str) -> Any:
    return value


def _kuberay(spec: KubeRayClusterSpec | Mapping[str, Any]) -> KubeRayClusterSpec:
    parsed = parse_spec(spec) if isinstance(spec, Mapping) else spec
    if not isinstance(parsed, KubeRayClusterSpec):
        raise BadSpec(f"cluster {parsed.name!r} is of kind {parsed.kind}: only kuberay clusters are made in Kubernetes")
    return parsed


async def _wait_ready(access: Access, spec: KubeRayClusterSpec, body: dict[str, Any]) -> None:
    await wait_ready(await Kubernetes.connect(access), spec, body, say=pulumi.log.info)


async def _guarded(work: Any) -> None:
    """An error of ours as one that Pulumi prints without a traceback."""
    try:
        await run_async(work)
    except InfraError as exc:
        raise pulumi.RunError(str(exc)) from None
