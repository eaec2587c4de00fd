"""`KubeRayOperator`: the Pulumi component of KubeRay's operator and its definitions."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes
import yaml

from infra.delivery import CHART, REPOSITORY, helm_values
from infra.provider import owned_here
from infra.support import Operator

TYPE = "infill:kubernetes:KubeRayOperator"
VERSION = "1.7.0"
DEFINITIONS = "https://raw.githubusercontent.com/ray-project/kuberay/v{version}/helm-chart/kuberay-operator/crds"
KINDS = ("rayclusters", "rayjobs", "rayservices", "raycronjobs")


@dataclass
class KubeRayOperatorArgs:
    """What a `KubeRayOperator` is made from.

    Attributes:
        namespace: made with it.
        version: of KubeRay; chart, operator and definitions.
        feature_gates: gates to turn on or off, by KubeRay's names.
        values: merged into the chart's values.
        chart: a folder or archive that holds the chart. Default: the release's, from KubeRay's Helm repository.
        definitions: folder or address of the definitions' files. Default: the release's, at GitHub.
        definitions_provider: a provider that takes over definitions that are there already, as after an earlier stack: see
            `kubernetes_provider(adopt=True)`. Default: the component's own provider, which refuses them.
    """

    namespace: str = "kuberay-system"
    version: str = VERSION
    feature_gates: Mapping[str, bool] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    chart: str | None = None
    definitions: str | None = None
    definitions_provider: kubernetes.Provider | None = None

    @property
    def operator(self) -> Operator:
        """What it will run, for the support matrix."""
        return Operator(self.version, frozenset(gate for gate, on in self.feature_gates.items() if on))


class KubeRayOperator(pulumi.ComponentResource):
    """KubeRay's operator, as a Helm release of a pinned version.

    Its definitions (CRDs) are resources of their own: Helm neither upgrades nor deletes them. They are kept when the stack is
    destroyed, because to delete a definition is to delete every RayCluster that anyone has.
    """

    namespace: pulumi.Output[str]

    def __init__(self, name: str, args: KubeRayOperatorArgs | None = None, opts: pulumi.ResourceOptions | None = None) -> None:
        args = args or KubeRayOperatorArgs()
        bodies = read_definitions(args)
        super().__init__(TYPE, name, {}, opts)
        self.namespace_name = args.namespace
        self.operator = args.operator
        child = pulumi.ResourceOptions(parent=self)
        metadata: Any = {"name": args.namespace, "labels": owned_here()}
        space = kubernetes.core.v1.Namespace(name, metadata=metadata, opts=child)
        definitions = [self._definition(name, body, args.definitions_provider) for body in bodies]
        repository: Any = None if args.chart else {"repo": REPOSITORY}
        self.release = kubernetes.helm.v3.Release(
            name,
            name=CHART,
            chart=args.chart or CHART,
            version=args.version,
            namespace=args.namespace,
            repository_opts=repository,
            skip_crds=True,
            values=helm_values(args.feature_gates, args.values),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[space, *definitions]),
        )
        self.namespace = self.release.namespace.apply(lambda _: args.namespace)
        self.register_outputs({"namespace": self.namespace, "version": args.version})

    def _definition(self, name: str, body: dict[str, Any], provider: kubernetes.Provider | None) -> pulumi.Resource:
        options = pulumi.ResourceOptions(parent=self, retain_on_delete=True, provider=provider)
        metadata = {
            **body["metadata"],
            "labels": {**body["metadata"].get("labels", {}), **owned_here()},
            "annotations": {**body["metadata"].get("annotations", {}), "pulumi.com/patchForce": "true"},
        }
        return kubernetes.apiextensions.CustomResource(
            f"{name}-{body['spec']['names']['plural']}",
            api_version=body["apiVersion"],
            kind=body["kind"],
            metadata=metadata,
            spec=body["spec"],
            opts=options,
        )


def read_definitions(args: KubeRayOperatorArgs) -> list[dict[str, Any]]:
    """KubeRay's definitions of a version.

    Raises:
        pulumi.RunError: they cannot be read.
    """
    source = args.definitions or DEFINITIONS.format(version=args.version)
    return [_definition(f"{source}/ray.io_{kind}.yaml") for kind in KINDS]


@cache
def _definition(place: str) -> dict[str, Any]:
    try:
        body = yaml.load(_text(place), Loader=_Loader)
    except yaml.YAMLError as exc:
        raise pulumi.RunError(f"{place} is not YAML: {' '.join(str(exc).split())}; {_REMEDY}") from None
    if not isinstance(body, dict) or body.get("kind") != "CustomResourceDefinition":
        raise pulumi.RunError(f"{place} is no definition (CustomResourceDefinition); {_REMEDY}")
    return body


_REMEDY = "set definitions: to a folder that has KubeRay's"
# The definitions are a megabyte of YAML: libyaml reads them in a tenth of the time, where PyYAML has it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _text(place: str) -> str:
    try:
        if "://" not in place:
            return Path(place).read_text()
        with urllib.request.urlopen(place, timeout=30) as answer:
            return str(answer.read().decode())
    except (OSError, urllib.error.URLError) as exc:
        raise pulumi.RunError(f"cannot read {place}: {exc}; {_REMEDY}") from None
