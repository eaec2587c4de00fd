"""`BackfillJob` and `BackfillSchedule`: the Pulumi components of a declared backfill."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

from infra import labels
from infra.backfill_body import Driver, own_cluster, own_resources, ray_cron_job_body, ray_job_body
from infra.backfill_gate import is_suspended_now, look, wait_taken
from infra.backfill_resources import ScheduleKind, check_kind
from infra.backfill_spec import BackfillSpec
from infra.body import env_secret_data, env_secret_name, env_secret_variables
from infra.cron_body import cron_job_bodies
from infra.errors import BadSpec, InfraError
from infra.kube import access_of, run, run_async
from infra.operator import KubeRayOperator
from infra.provider import owned_here, stack_label
from infra.spec import KubeRayClusterSpec
from infra.support import CRON_GATE, schedule_kind

_CLASSES: Mapping[str, Any] = {
    "ServiceAccount": kubernetes.core.v1.ServiceAccount,
    "ConfigMap": kubernetes.core.v1.ConfigMap,
    "Role": kubernetes.rbac.v1.Role,
    "RoleBinding": kubernetes.rbac.v1.RoleBinding,
    "NetworkPolicy": kubernetes.networking.v1.NetworkPolicy,
    "CronJob": kubernetes.batch.v1.CronJob,
}


@dataclass
class BackfillArgs:
    """What a `BackfillJob` or a `BackfillSchedule` is made from.

    Attributes:
        spec: the backfill.
        cluster: the cluster that it names; each run has one of that shape, unless the backfill is on the standing one.
        driver: what a run starts; `runner.declared.prepare` makes it.
        wait: whether `pulumi up` looks at Kubernetes: at what KubeRay has, whether another stack declares the same, and whether
            KubeRay takes the run. It never waits for the run's end. Without it the component only declares.
        operator: the operator that the same program declares. Default: the one that runs already.
        kind: what makes the runs of a schedule. Default: RayCronJob where the operator is known to have its gate on, else CronJob.
    """

    spec: BackfillSpec
    cluster: KubeRayClusterSpec
    driver: Driver
    wait: bool = True
    operator: KubeRayOperator | None = None
    kind: ScheduleKind | None = None


class _Backfill(pulumi.ComponentResource):
    """What both have: the look at Kubernetes, and what goes with a run's own cluster."""

    def __init__(self, name: str, args: BackfillArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(f"infill:kubernetes:{type(self).__name__}", name, {}, opts)
        self._args, self._spec = args, args.spec
        try:
            args.cluster.check_provisionable()
            self._access = access_of(args.cluster) if args.wait else None
            self._operator = args.operator.operator if args.operator else None
            if self._access is not None:
                space = args.cluster.namespace
                self._operator = run(look(self._access, self._spec, space, self._operator, stack=stack_label()))
            self._declare_all(name)
        except InfraError as exc:  # which Pulumi prints without a traceback
            raise pulumi.RunError(str(exc)) from None

    def _declare_all(self, name: str) -> None:
        raise NotImplementedError

    def _before(self, name: str) -> list[pulumi.Resource]:
        """What a run's own cluster asks for."""
        found: list[pulumi.Resource] = [self._args.operator] if self._args.operator else []
        if self._spec.standing:
            return found
        found += [self._declare(name, body, []) for body in own_resources(self._spec, self._args.cluster)]
        cluster = own_cluster(self._spec, self._args.cluster)
        if env_secret_variables(cluster):
            metadata: Any = {"name": env_secret_name(cluster), "namespace": cluster.namespace, "labels": owned_here()}
            data = pulumi.Output.secret(env_secret_data(cluster))
            opts = pulumi.ResourceOptions(parent=self)
            found.append(kubernetes.core.v1.Secret(f"{name}-env", metadata=metadata, string_data=data, opts=opts))
        return found

    def _declare(self, name: str, body: Mapping[str, Any], before: list[pulumi.Resource], **options: Any) -> pulumi.Resource:
        annotations = {
            **body["metadata"].get("annotations", {}),
            labels.DECLARED_BY: stack_label(),
            "pulumi.com/skipAwait": "true",  # Pulumi knows nothing of what they are ready for
        }
        metadata: Any = {**body["metadata"], "annotations": annotations}
        opts = pulumi.ResourceOptions(parent=self, depends_on=before, **options)
        kind = body["kind"]
        if kind in _CLASSES:
            fields = {_snake(key): value for key, value in body.items() if key not in ("apiVersion", "kind", "metadata")}
            made: pulumi.Resource = _CLASSES[kind](name, metadata=metadata, **fields, opts=opts)
            return made
        return kubernetes.apiextensions.CustomResource(
            name, api_version=body["apiVersion"], kind=kind, metadata=metadata, spec=body["spec"], opts=opts
        )


class BackfillJob(_Backfill):
    """One run of a backfill, as a RayJob: made when the declaration is new or another, and else left as it is.

    Raises:
        pulumi.RunError: another stack declares it, KubeRay is too old or refuses the run, or Kubernetes cannot be asked.
    """

    run_name: pulumi.Output[str]
    """Of the RayJob: the backfill's name and a hash of the declaration."""
    namespace: pulumi.Output[str]

    def _declare_all(self, name: str) -> None:
        if self._spec.schedule is not None:
            raise BadSpec(f"backfill {self._spec.name!r} has a schedule; declare it with BackfillSchedule")
        body = ray_job_body(self._spec, self._args.cluster, self._args.driver)
        run_name, space = str(body["metadata"]["name"]), str(body["metadata"]["namespace"])
        # Another declaration is another resource to Pulumi too. What is not part of it, such as the code that was uploaded last,
        # is written once: KubeRay looks at it when the run starts.
        fixed = ["spec.entrypoint", "spec.runtimeEnvYAML", "spec.rayClusterSpec"]
        made = self._declare(run_name, body, self._before(name), ignore_changes=fixed)
        self.run_name = made.urn.apply(lambda _: self._taken(run_name, space))
        self.namespace = pulumi.Output.from_input(space)
        self.outputs = {"run_name": self.run_name, "namespace": self.namespace}
        self.register_outputs(self.outputs)

    async def _taken(self, run_name: str, namespace: str) -> str:
        if self._access is not None and not pulumi.runtime.is_dry_run():
            try:
                state = await run_async(wait_taken(self._access, run_name, namespace))
            except InfraError as exc:
                raise pulumi.RunError(str(exc)) from None
            if not state:
                pulumi.log.warn(f"run {run_name}: KubeRay has not looked at it; does its operator run?")
        return run_name


class BackfillSchedule(_Backfill):
    """The runs of a backfill by a schedule: KubeRay's RayCronJob, or a CronJob that makes the RayJobs.

    Raises:
        pulumi.RunError: as of `BackfillJob`.
    """

    kind: pulumi.Output[str]
    """RayCronJob or CronJob."""
    schedule_name: pulumi.Output[str]
    namespace: pulumi.Output[str]

    def _declare_all(self, name: str) -> None:
        spec, cluster, driver = self._spec, self._args.cluster, self._args.driver
        if spec.schedule is None:
            raise BadSpec(f"backfill {spec.name!r} has no schedule; declare it with BackfillJob")
        kind, before = self._kind(), self._before(name)
        if kind == "RayCronJob":
            self._declare(name, ray_cron_job_body(spec, cluster, driver), before, **self._resumed())
        else:
            for body in cron_job_bodies(spec, cluster, driver):
                before = [*before, self._declare(name, body, before)]
        self.outputs = {"kind": kind, "schedule_name": spec.name, "namespace": cluster.namespace}
        for key, value in self.outputs.items():
            setattr(self, key, pulumi.Output.from_input(value))
        self.register_outputs(self.outputs)

    def _kind(self) -> ScheduleKind:
        """What makes the runs; why, is said."""
        spec, given = self._spec, self._args.kind
        if given is not None or spec.standing:
            check_kind(spec, given or "CronJob")
            return given or "CronJob"
        operator = self._operator
        kind = schedule_kind(operator) if operator else "CronJob"
        known = operator is not None and operator.gates is not None
        gate = "on" if kind == "RayCronJob" else "off" if known else "not known to be on"
        pulumi.log.info(f"backfill {spec.name}: KubeRay's feature gate {CRON_GATE} is {gate}: a {kind} makes its runs")
        return kind

    def _resumed(self) -> dict[str, Any]:
        """A RayCronJob that is resumed makes up for every tick it missed, all at once; a new one begins with the next."""
        if self._access is None or self._spec.suspend:
            return {}
        if not run(is_suspended_now(self._access, self._spec.name, self._args.cluster.namespace)):
            return {}
        return {"replace_on_changes": ["spec.suspend"], "delete_before_replace": True}


def _snake(key: str) -> str:
    return re.sub("([A-Z])", lambda match: f"_{match[1].lower()}", key)
