"""Declare the clusters and backfills of folders as a stack's config asks: all is checked before anything is declared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pulumi
import pulumi_kubernetes as kubernetes

from infra.access import RunnerAccess
from infra.body import env_secret_data, ray_cluster_body
from infra.errors import BadSpec, InfraError
from infra.files import read_folder
from infra.gate import inspect_removed
from infra.kube import Access, access_of, run
from infra.operator import KubeRayOperator, KubeRayOperatorArgs, read_definitions
from infra.parts import K8sConfigMethod
from infra.policy import check_policy, policy_beside
from infra.provider import kubernetes_provider, stack_label
from infra.raycluster import RayCluster, RayClusterArgs
from infra.spec import KubeRayClusterSpec
from infra.support import check_supported
from stacks.backfills import declare_backfill
from stacks.preparing import Prepared, prepared
from stacks.project import access_args, chosen, names_of
from stacks.settings import Settings, operator_settings, read_settings


def declare(folder: str | Path, backfills: str | Path | None = None) -> dict[str, RayCluster]:
    """The clusters of ``folder/*.yaml`` that the stack names, and the backfills of ``backfills/*.yaml``.

    The policy of ``policy.yaml`` beside the first folder holds for them. Outputs are exported: of a cluster under its name, of a
    backfill under ``backfill-<name>``.

    Args:
        backfills: a folder; one that is not there has none.

    Raises:
        pulumi.RunError: a file or a setting is wrong, or Kubernetes or a database refuses; nothing is declared then.
    """
    try:
        settings = read_settings()
        found = read_folder(folder)
        policy = policy_beside(folder)
        specs = list(chosen(found, settings, str(folder)))
        check_policy(policy, *specs)
        _check(specs, settings)
        jobs = prepared(backfills, found, [spec.name for spec in specs], settings, send=not pulumi.runtime.is_dry_run())
        check_policy(policy, *(job.cluster for job in jobs))
        shapes = {spec.name: spec for spec in (*(job.cluster for job in jobs), *specs)}
        accesses = {name: access_of(spec) for name, spec in shapes.items()}
        if settings.wait:
            _spare_removed(specs, accesses, settings)
        return _declare_all(specs, jobs, accesses, settings)
    except InfraError as exc:
        raise pulumi.RunError(str(exc)) from None


def _check(specs: list[KubeRayClusterSpec], settings: Settings) -> None:
    """Refuse now what the components would refuse when others are declared already."""
    names = [spec.name for spec in specs]
    unknown = [name for name in settings.adopt if name not in names]
    if unknown:
        raise BadSpec(f"infill:adopt: the stack does not make the cluster {unknown[0]!r}; it makes {', '.join(names) or 'none'}")
    operator, access = _operator_args(settings), access_args(settings, "default", [])
    if operator:
        read_definitions(operator)
    if access:
        access.check()
    for spec in specs:
        spec.check_provisionable()
        env_secret_data(spec)
        if operator:
            check_supported(ray_cluster_body(spec), operator.operator)


def _spare_removed(specs: list[KubeRayClusterSpec], accesses: dict[str, Access], settings: Settings) -> None:
    """Refuse to remove clusters that still have jobs; they are looked for where the stack still has others."""
    may_end_jobs = settings.force or pulumi.runtime.is_dry_run()
    for access, namespace in dict.fromkeys((accesses[spec.name], spec.namespace) for spec in specs):
        declared = {spec.name for spec in specs if (accesses[spec.name], spec.namespace) == (access, namespace)}
        run(inspect_removed(access, namespace, stack_label(), declared, may_end_jobs=may_end_jobs, warn=pulumi.log.warn))


def _declare_all(
    specs: list[KubeRayClusterSpec], backfills: list[Prepared], accesses: dict[str, Access], settings: Settings
) -> dict[str, RayCluster]:
    shared = _Shared(specs, accesses, settings)
    clusters = {spec.name: _cluster(spec, settings, shared) for spec in specs}
    for backfill in backfills:
        before: list[pulumi.Resource] = [clusters[backfill.spec.cluster]] if backfill.spec.standing else []
        options = shared.options(backfill.cluster, before)
        declare_backfill(backfill, settings, shared.operator(backfill.cluster), options)
    return clusters


def _cluster(spec: KubeRayClusterSpec, settings: Settings, shared: _Shared) -> RayCluster:
    args = RayClusterArgs(spec, settings.wait, settings.force, spec.name in settings.adopt, shared.operator(spec))
    cluster = RayCluster(spec.name, args, shared.options(spec))
    pulumi.export(spec.name, cluster.outputs)
    return cluster


class _Shared:
    """What is declared once for all that is in one Kubernetes, or in one namespace of it, when it is first asked for.

    Args:
        specs: the clusters that stand, whose names the grants hold.
        accesses: of every cluster, by its name.
    """

    def __init__(self, specs: list[KubeRayClusterSpec], accesses: dict[str, Access], settings: Settings) -> None:
        self._specs, self._accesses, self._settings = specs, accesses, settings
        self._providers: dict[Access, kubernetes.Provider] = {}
        self._operators: dict[Access, KubeRayOperator] = {}
        self._grants: dict[tuple[Access, str], RunnerAccess | None] = {}

    def options(self, spec: KubeRayClusterSpec, before: Sequence[pulumi.Resource] = ()) -> pulumi.ResourceOptions:
        """The options of a component where a cluster is, behind what its namespace needs."""
        provider, grant = self._provider(spec), self._grant(spec)
        return pulumi.ResourceOptions(depends_on=[*([grant] if grant else []), *before], providers=[provider])

    def operator(self, spec: KubeRayClusterSpec) -> KubeRayOperator | None:
        self._provider(spec)
        return self._operators.get(self._accesses[spec.name])

    def _provider(self, spec: KubeRayClusterSpec) -> kubernetes.Provider:
        access = self._accesses[spec.name]
        if access not in self._providers:
            number = f"-{len(self._providers) + 1}" if self._providers else ""
            ambient = spec.config_method is K8sConfigMethod.LOCAL and spec.kubeconfig is None
            adopt = bool(self._settings.adopt)
            self._providers[access] = kubernetes_provider(f"kubernetes{number}", access, ambient=ambient, adopt=adopt)
            if args := _operator_args(self._settings):
                # Definitions outlive stacks, this one's too: those that are there are taken over.
                args.definitions_provider = kubernetes_provider(f"definitions{number}", access, ambient=ambient, adopt=True)
                options = pulumi.ResourceOptions(providers=[self._providers[access]])
                self._operators[access] = KubeRayOperator(f"kuberay-operator{number}", args, options)
        return self._providers[access]

    def _grant(self, spec: KubeRayClusterSpec) -> RunnerAccess | None:
        where = (self._accesses[spec.name], spec.namespace)
        if where not in self._grants:
            here = [other for other in self._specs if (self._accesses[other.name], other.namespace) == where]
            names = [name for other in here for name in names_of(other)]
            args = access_args(self._settings, spec.namespace, names)
            options = pulumi.ResourceOptions(providers=[self._provider(spec)])
            self._grants[where] = RunnerAccess(f"runner-{spec.namespace}", args, options) if args else None
        return self._grants[where]


def _operator_args(settings: Settings) -> KubeRayOperatorArgs | None:
    given = operator_settings(settings)
    if given is None:
        return None
    return KubeRayOperatorArgs(
        given.namespace, given.version, given.feature_gates, given.values, given.chart, definitions=given.definitions
    )
