"""`ClusterSpec`: the one description of a Ray cluster. A Pulumi component takes it, a database keeps it, a YAML file holds it."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from infra import kubernetes_names as names
from infra.errors import BadSpec
from infra.groups import Group, HeadGroup, WorkerGroup
from infra.images import client_python_version, client_ray_version, default_image
from infra.model import Annotations, Model, OwnLabels, Raw
from infra.parts import (
    AutoscalerOptions,
    AwsConfig,
    GcsFaultTolerance,
    K8sConfigMethod,
    NetworkPolicy,
    Scheduler,
    UpgradeStrategy,
)
from infra.secrets_in_specs import literal_tree, referenced_tree

LONGEST_NAME = 50
"""KubeRay takes 53 characters of a RayCluster and makes `<name>-head-svc` of it; the rest is ours."""
HASH_LENGTH = 6


class ClusterSpec(Model):
    """What all kinds of cluster have; one of `KubeRayClusterSpec`, `LocalClusterSpec` and `ExternalClusterSpec`."""

    kind: Literal["kuberay", "local", "external"]
    name: str
    ray_init_kwargs: Raw = Field(default_factory=dict)
    """For ray.init, e.g. {runtime_env: {env_vars: {A: b}}}; secrets as `${env:NAME}`."""

    @field_validator("ray_init_kwargs")
    @classmethod
    def _kwargs_hold_no_secret(cls, kwargs: Raw) -> Raw:
        env_vars = kwargs.get("runtime_env", {}).get("env_vars", {}) if isinstance(kwargs.get("runtime_env", {}), Mapping) else {}
        wrong = [name for name, value in env_vars.items() if not isinstance(value, str)] if isinstance(env_vars, Mapping) else []
        if wrong:
            raise ValueError(f"runtime_env.env_vars.{wrong[0]}: Ray takes strings only, not {env_vars[wrong[0]]!r}")
        return dict(referenced_tree(kwargs))

    def warnings(self) -> list[str]:
        """What is allowed in a definition and will not work when it is provisioned."""
        return []

    def plain(self) -> dict[str, Any]:
        """Plain data, without what was not given; its kind is always said."""
        return {"kind": self.kind, **super().plain()}

    def __reduce__(self) -> tuple[Any, ...]:
        return parse_spec, (self.plain(),)


class LocalClusterSpec(ClusterSpec):
    """Ray on this machine."""

    kind: Literal["local"] = "local"
    name: Annotated[str, AfterValidator(lambda name: names.dns_1123(name, LONGEST_NAME))]


_ADDRESS = re.compile(
    r"(ray|https?)://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9_]([-A-Za-z0-9_.]*[A-Za-z0-9_])?)(:([0-9]{1,5}|my_port))?(/\S*)?"
)


class ExternalClusterSpec(ClusterSpec):
    """A Ray cluster that others run."""

    kind: Literal["external"] = "external"
    name: Annotated[str, AfterValidator(lambda name: names.dns_1123(name, LONGEST_NAME))]
    address: str
    """``ray://host:10001`` (Ray Client), or ``http://host:8265`` (dashboard, Jobs API)."""

    @field_validator("address")
    @classmethod
    def _is_address(cls, address: str) -> str:
        match = _ADDRESS.fullmatch(address)
        if not match:
            raise ValueError(f"{address!r} is no address of Ray; write ray://host:10001 or http://host:8265")
        if match[1] == "ray" and match[4] is None:
            raise ValueError(f"{address!r} has no port; Ray Client's is 10001 unless the cluster says otherwise")
        if match[5] and match[5].isdigit() and not 0 < int(match[5]) < 65536:
            raise ValueError(f"{address!r}: port {match[5]} is not between 1 and 65535")
        return address

    def warnings(self) -> list[str]:
        return ["address: its port is the placeholder my_port"] if self.address.endswith(":my_port") else []


class KubeRayClusterSpec(ClusterSpec):
    """A RayCluster that KubeRay runs."""

    kind: Literal["kuberay"] = "kuberay"
    name: Annotated[str, AfterValidator(lambda name: names.dns_1035(name, LONGEST_NAME))]
    """Lowercase letters, digits and '-', at most 50 characters."""
    namespace: Annotated[str, AfterValidator(names.dns_1123)] = "default"
    config_method: K8sConfigMethod = K8sConfigMethod.LOCAL
    aws_config: AwsConfig | None = None
    kubeconfig: str | None = None
    """Path, for LOCAL. Default: KUBECONFIG, then ~/.kube/config."""
    context: str | None = None
    """Context in it. Default: its current one."""
    ray_version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")] | None = None
    """Default: that of whoever provisions it; pin it in files that several people use."""
    python_version: Annotated[str, Field(pattern=r"^3\.[0-9]+$")] | None = None
    """For default images. Default: that of whoever provisions it."""
    head_group: HeadGroup = Field(default_factory=HeadGroup)
    worker_groups: list[WorkerGroup] = Field(default_factory=lambda: [WorkerGroup(name="cpu")])
    """Default: one group of CPU workers."""
    autoscaler: AutoscalerOptions = Field(default_factory=AutoscalerOptions)
    gcs_fault_tolerance: GcsFaultTolerance | None = None
    network_policy: NetworkPolicy | None = None
    token_authentication: bool | None = None
    """Default: on where the Ray version has it (2.52)."""
    upgrade_strategy: UpgradeStrategy = UpgradeStrategy.RECREATE
    scheduler: Scheduler | None = None
    suspend: bool = False
    """Declared, with no pods."""
    protect: bool = False
    """Pulumi refuses to delete it."""
    ready_timeout_seconds: int = Field(default=900, gt=0)
    """How long `pulumi up` waits for it to serve."""
    unschedulable_seconds: int = Field(default=60, ge=0)
    """How long a pod may find no node before that is an error; longer where a node autoscaler says it acts."""
    labels: OwnLabels = Field(default_factory=dict)
    """Labels of the RayCluster."""
    annotations: Annotations = Field(default_factory=dict)
    overrides: Raw = Field(default_factory=dict)
    """Merged into the RayCluster as it is rendered; list items go by name."""

    @field_validator("worker_groups")
    @classmethod
    def _groups_have_names(cls, groups: list[WorkerGroup]) -> list[WorkerGroup]:
        """Names left to us are made unique; a name given twice is an error."""
        given = [group.name for group in groups if group.name]
        repeated = next((name for name in given if given.count(name) > 1), None)
        if repeated:
            raise ValueError(f"two groups have the name {repeated!r}; a group is found by its name")
        reserved = next((name for name in given if name in ("head", "headgroup")), None)
        if reserved:
            raise ValueError(f"{reserved!r} is the head's own name; give the group another")
        taken, named = set(given), []
        for group in groups:
            name = group.name or _free_name(group.kind, taken)
            taken.add(name)
            named.append(group.model_copy(update={"name": name}))
        return named

    @field_validator("overrides")
    @classmethod
    def _overrides_hold_no_secret(cls, overrides: Raw) -> Raw:
        return dict(literal_tree(overrides))

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.config_method is not K8sConfigMethod.LOCAL and (self.kubeconfig or self.context):
            raise ValueError(f"kubeconfig, context: belong to config_method LOCAL, and it is {self.config_method}; drop them")
        if self.upgrade_strategy is UpgradeStrategy.NEW_CLUSTER:
            longest = LONGEST_NAME - HASH_LENGTH - 1
            if len(self.name) > longest:
                raise ValueError(
                    f"name: {self.name!r} has {len(self.name)} characters; NewCluster adds a hash, so at most {longest} fit"
                )
        self._check_head_env()
        for group in self.worker_groups:
            self._check_replicas(group)
        if self.token_authentication and self.ray_version and not has_token_authentication(self.ray_version):
            raise ValueError(f"token_authentication: Ray has it since 2.52.0, and ray_version is {self.ray_version}")
        return self

    def _check_head_env(self) -> None:
        """KubeRay refuses what it sets itself."""
        instead = {
            "RAY_REDIS_ADDRESS": "gcs_fault_tolerance.redis_address",
            "REDIS_USERNAME": "gcs_fault_tolerance.redis_username",
            **({"REDIS_PASSWORD": "gcs_fault_tolerance.redis_password"} if self.gcs_fault_tolerance else {}),
            "RAY_enable_autoscaler_v2": "autoscaler.version",
        }
        wrong = next((name for name in self.head_group.env if name in instead), None)
        if wrong:
            raise ValueError(f"head_group.env: {wrong} is KubeRay's to set; give {instead[wrong]}")

    def _check_replicas(self, group: WorkerGroup) -> None:
        if self.autoscaler.enabled and group.replicas is not None:
            raise ValueError(
                f"worker_groups.{group.name}: replicas: {group.replicas} is the autoscaler's to set; "
                f"give min_replicas: {group.replicas} to have as many at least, or autoscaler: {{enabled: false}}"
            )
        if not self.autoscaler.enabled and group.model_fields_set & {"min_replicas", "max_replicas", "idle_timeout_seconds"}:
            raise ValueError(
                f"worker_groups.{group.name}: min_replicas, max_replicas and idle_timeout_seconds are for the autoscaler, "
                "which is off; give replicas"
            )
        if self.autoscaler.version == "v1" and group.idle_timeout_seconds is not None:
            raise ValueError(f"worker_groups.{group.name}: idle_timeout_seconds of a group needs autoscaler: {{version: v2}}")

    @property
    def ray(self) -> str:
        """The Ray version to use: the spec's, or that installed here."""
        return self.ray_version or client_ray_version()

    @property
    def has_token(self) -> bool:
        """Whether clients need a token."""
        given = self.token_authentication
        return has_token_authentication(self.ray) if given is None else given

    def groups(self) -> dict[str, Group]:
        """All groups by name; the head is ``head``."""
        return {"head": self.head_group, **{str(group.name): group for group in self.worker_groups}}

    def image_of(self, group: Group) -> str:
        """The image a group runs."""
        python = self.python_version or client_python_version()
        return group.image or default_image(self.ray, python, arch=group.arch, gpu=group.gpus > 0)

    def spec_hash(self) -> str:
        """Changes with the spec and nothing else; 12 hexadecimal digits. Equal specs have the same."""
        text = json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def warnings(self) -> list[str]:
        found = []
        for name, group in self.groups().items():
            if group.service_account:
                try:
                    names.subdomain(group.service_account)
                except ValueError as exc:
                    found.append(f"{_place(name)}.service_account: {exc}; Kubernetes will refuse it")
            tag = re.search(r"\brayproject/ray[-\w]*:(\d+\.\d+\.\d+)(-py(\d)(\d+))?\b", group.image or "")
            if tag and self.ray_version and tag[1] != self.ray_version:
                found.append(f"{_place(name)}.image: {group.image!r} has Ray {tag[1]}, and ray_version is {self.ray_version}")
            if tag and tag[3] and self.python_version and f"{tag[3]}.{tag[4]}" != self.python_version:
                found.append(f"{_place(name)}.image: {group.image!r} has Python {tag[3]}.{tag[4]}, not {self.python_version}")
        if self.config_method is K8sConfigMethod.EKS_AUTH and not (self.aws_config and self.aws_config.cluster_name):
            found.append("aws_config.cluster_name: EKS_AUTH needs the name of the EKS cluster")
        return found

    def check_provisionable(self) -> None:
        """Refuse what a definition may hold and Kubernetes will not take.

        Raises:
            BadSpec: with every such problem.
        """
        problems = self.warnings()
        if problems:
            raise BadSpec("\n".join(f"cluster {self.name!r}: {problem}" for problem in problems))


_KINDS: dict[str, type[ClusterSpec]] = {
    "kuberay": KubeRayClusterSpec,
    "local": LocalClusterSpec,
    "external": ExternalClusterSpec,
}


def parse_spec(data: Any, where: str = "") -> ClusterSpec:
    """The spec that plain data describes; ``kind`` is kuberay unless it says otherwise.

    Args:
        data: as YAML or JSON hold it, and `ClusterSpec.plain` gives it.
        where: what to call the data in a message: a file.

    Raises:
        BadSpec: every problem with its field, value and remedy.
    """
    what = f"{where}: " if where else ""
    if not isinstance(data, Mapping):
        raise BadSpec(f"{what}a cluster is a mapping with a name, not {type(data).__name__}")
    kind = data.get("kind", "kuberay")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise BadSpec(f"{what}kind: {kind!r} is none of {', '.join(_KINDS)}")
    return _KINDS[kind].parse(data, where)


def has_token_authentication(ray_version: str) -> bool:
    """Ray has token authentication since 2.52; KubeRay asks for that version too."""
    major, minor = (int(part) for part in ray_version.split(".")[:2])
    return (major, minor) >= (2, 52)


def warn_about(spec: ClusterSpec) -> None:
    """Show the warnings of a spec to whoever defines it."""
    for problem in spec.warnings():
        warnings.warn(f"cluster {spec.name!r}: {problem}", stacklevel=3)


def _free_name(kind: str, taken: set[str]) -> str:
    number = 1
    while (name := kind if number == 1 else f"{kind}-{number}") in taken:
        number += 1
    return name


def _place(group: str) -> str:
    return "head_group" if group == "head" else f"worker_groups.{group}"
