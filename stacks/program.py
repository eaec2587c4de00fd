"""Declare the clusters of a folder as a stack's config asks: all is checked before anything is declared."""

from __future__ import annotations

from pathlib import Path

import pulumi
import pulumi_kubernetes as kubernetes

from infra.access import RunnerAccess
from infra.access_bodies import RunnerAccessArgs
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
from stacks.project import access_args, chosen, names_of
from stacks.settings import Settings, operator_settings, read_settings


def declare(folder: str | Path) -> dict[str, RayCluster]:
    """The clusters of ``folder/*.yaml`` that the stack names; each one's outputs are exported under its name.

    The policy of ``policy.yaml`` beside the folder holds for them, where there is one.

    Raises:
        pulumi.RunError: a file or a setting is wrong, or Kubernetes refuses; nothing is declared then.
    """
    try:
        settings = read_settings()
        specs = list(chosen(read_folder(folder), settings, str(folder)))
        check_policy(policy_beside(folder), *specs)
        _check(specs, settings)
        accesses = {spec.name: access_of(spec) for spec in specs}
        if settings.wait:
            _spare_removed(specs, accesses, settings)
    except InfraError as exc:
        raise pulumi.RunError(str(exc)) from None
    return _declare_all(specs, accesses, settings)


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


def _declare_all(specs: list[KubeRayClusterSpec], accesses: dict[str, Access], settings: Settings) -> dict[str, RayCluster]:
    providers: dict[Access, kubernetes.Provider] = {}
    operators: dict[Access, KubeRayOperator] = {}
    grants: dict[tuple[Access, str], RunnerAccess | None] = {}
    clusters = {}
    for spec in specs:
        access = accesses[spec.name]
        if access not in providers:
            number = f"-{len(providers) + 1}" if providers else ""
            ambient = spec.config_method is K8sConfigMethod.LOCAL and spec.kubeconfig is None
            providers[access] = kubernetes_provider(f"kubernetes{number}", access, ambient=ambient, adopt=bool(settings.adopt))
            if args := _operator_args(settings):
                # Definitions outlive stacks, this one's too: those that are there are taken over.
                args.definitions_provider = kubernetes_provider(f"definitions{number}", access, ambient=ambient, adopt=True)
                options = pulumi.ResourceOptions(providers=[providers[access]])
                operators[access] = KubeRayOperator(f"kuberay-operator{number}", args, options)
        where = (access, spec.namespace)
        if where not in grants:
            names = [name for other in specs if (accesses[other.name], other.namespace) == where for name in names_of(other)]
            grants[where] = _grant(f"runner-{spec.namespace}", access_args(settings, spec.namespace, names), providers[access])
        clusters[spec.name] = _cluster(spec, settings, operators.get(access), grants[where], providers[access])
    return clusters


def _cluster(
    spec: KubeRayClusterSpec,
    settings: Settings,
    operator: KubeRayOperator | None,
    grant: RunnerAccess | None,
    provider: kubernetes.Provider,
) -> RayCluster:
    args = RayClusterArgs(spec, settings.wait, settings.force, spec.name in settings.adopt, operator)
    before = [grant] if grant else []
    cluster = RayCluster(spec.name, args, pulumi.ResourceOptions(depends_on=before, providers=[provider]))
    pulumi.export(spec.name, cluster.outputs)
    return cluster


def _operator_args(settings: Settings) -> KubeRayOperatorArgs | None:
    given = operator_settings(settings)
    if given is None:
        return None
    return KubeRayOperatorArgs(
        given.namespace, given.version, given.feature_gates, given.values, given.chart, definitions=given.definitions
    )


def _grant(name: str, args: RunnerAccessArgs | None, provider: kubernetes.Provider) -> RunnerAccess | None:
    return RunnerAccess(name, args, pulumi.ResourceOptions(providers=[provider])) if args else None
