"""The groups of a Ray cluster: one head, and workers of one or more shapes."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from infra import kubernetes_names as names
from infra.model import (
    Annotations,
    Bytes,
    Count,
    EnvName,
    EnvText,
    GroupName,
    Image,
    Labels,
    Model,
    OwnLabels,
    Quantity,
    Raw,
    SubdomainName,
)
from infra.secrets_in_specs import literal_tree, referenced

ARCH_LABEL = "kubernetes.io/arch"
HOME = "/home/infill"
"""A volume of its own, so that HOME can be written whatever user an image was made for."""
Arch = Literal["amd64", "arm64"]


class SecretKey(Model):
    """A value that a Kubernetes Secret of the cluster's namespace holds."""

    secret: SubdomainName
    """Name of the Secret."""
    key: str = Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)
    """Key in it."""


class Requests(Model):
    """What is asked of the scheduler, where it is less than the limits. Ray counts on the limits."""

    cpus: Quantity | None = None
    memory: Bytes | None = None
    ephemeral_storage: Bytes | None = None


def check_requests(requests: Requests | None, **limits: str | None) -> None:
    """Refuse a request that is more than its limit.

    Raises:
        ValueError: with the field.
    """
    for field, limit in limits.items():
        asked = getattr(requests, field, None)
        if asked and limit and names.parsed(asked) > names.parsed(limit):
            raise ValueError(f"requests.{field}: {asked} is more than the limit {field}: {limit}")


class Mount(Model):
    """Where a volume appears in the Ray container."""

    name: GroupName
    """Name of the volume."""
    path: str = Field(pattern=r"^/[^:]*$")
    """Absolute path in the container."""
    read_only: bool = False
    sub_path: str | None = None


class Group(Model):
    """What the pods of a group are. Fields in camelCase below are Kubernetes' own and go into the pod as they are."""

    image: Image | None = None
    """Default: Ray's image for the cluster's Ray and Python version, `arch`, and CUDA where there are GPUs."""
    arch: Arch = "amd64"
    """Platform of the nodes; also a node selector."""
    cpus: Quantity = "4"
    """CPU limit of a pod, and what Ray schedules by."""
    memory: Bytes = "8Gi"
    """Memory limit of a pod."""
    gpus: Count = 0
    """Accelerators of a pod."""
    gpu_resource: Annotated[str, AfterValidator(names.resource)] = "nvidia.com/gpu"
    """The accelerator's resource name: nvidia.com/gpu, amd.com/gpu, google.com/tpu, nvidia.com/mig-1g.10gb, ..."""
    requests: Requests | None = None
    """Default: the limits, so that a pod gets what Ray was told (quality of service Guaranteed)."""
    ephemeral_storage: Bytes | None = None
    """Disk limit of a pod."""
    shared_memory: Bytes | None = None
    """Size of /dev/shm, Ray's object store; counts as memory of the pod. Default: the container runtime's (64 MiB)."""
    service_account: str | None = None
    """Default: the namespace's."""
    node_selector: Labels = Field(default_factory=dict)
    tolerations: list[Raw] = Field(default_factory=list)
    """Kubernetes' form: {key, operator, value, effect}."""
    labels: OwnLabels = Field(default_factory=dict)
    """Labels of the pods."""
    annotations: Annotations = Field(default_factory=dict)
    """Annotations of the pods."""
    env: dict[EnvName, EnvText | SecretKey] = Field(default_factory=dict)
    """Environment: plain values, `${env:NAME}` of whoever runs `pulumi up` (kept in a Secret), or {secret: NAME, key: KEY}."""
    env_from_secrets: list[SubdomainName] = Field(default_factory=list)
    """Secrets whose keys all become variables."""
    priority_class: SubdomainName | None = None
    volumes: list[Raw] = Field(default_factory=list)
    """Kubernetes' form: {name, persistentVolumeClaim: {claimName: ...}}."""
    mounts: list[Mount] = Field(default_factory=list)
    image_pull_secrets: list[SubdomainName] = Field(default_factory=list)
    security_context: Raw = Field(default_factory=dict)
    """Merged into the containers' default, which fits Pod Security "restricted"."""
    pod_security_context: Raw = Field(default_factory=dict)
    """Merged into the pod's default: uid 1000, non-root, RuntimeDefault seccomp."""
    affinity: Raw = Field(default_factory=dict)
    topology_spread: list[Raw] = Field(default_factory=list)
    overrides: Raw = Field(default_factory=dict)
    """Merged into the group as it is rendered (headGroupSpec or an item of workerGroupSpecs); list items go by name."""

    @field_validator("env")
    @classmethod
    def _env_holds_no_secret(cls, env: dict[str, str | SecretKey]) -> dict[str, str | SecretKey]:
        return {key: referenced(key, value, secret_ref=True) if isinstance(value, str) else value for key, value in env.items()}

    @field_validator("overrides", "volumes")
    @classmethod
    def _overrides_hold_no_secret(cls, overrides: Any) -> Any:
        return literal_tree(overrides)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        self._check_arch()
        self._check_mounts()
        self._check_requests()
        for toleration in self.tolerations:
            if toleration.get("operator") == "Exists" and toleration.get("value"):
                raise ValueError(f"tolerations: {toleration.get('key')!r} has operator Exists, which takes no value; drop it")
        return self

    def _check_arch(self) -> None:
        selected = self.node_selector.get(ARCH_LABEL, self.arch)
        if selected != self.arch:
            raise ValueError(f"node_selector: {ARCH_LABEL}={selected} contradicts arch={self.arch}; set arch: {selected}")
        if self.image and "aarch64" in self.image.rpartition(":")[2] and self.arch != "arm64":
            raise ValueError(f"image: {self.image!r} is for arm64 and arch is {self.arch}; set arch: arm64")

    def _check_mounts(self) -> None:
        volumes = [str(volume.get("name", "")) for volume in self.volumes]
        paths = [mount.path for mount in self.mounts]
        ours = {"home": HOME, **({"shared-memory": "/dev/shm"} if self.shared_memory else {})}
        for name in volumes:
            try:
                names.dns_1123(name)
            except ValueError as exc:
                raise ValueError(f"volumes: name: {exc}") from None
            if name in ours:
                raise ValueError(f"volumes: {name!r} is the name of Infill's own, at {ours[name]}; give it another")
        repeated = {name for name in volumes if volumes.count(name) > 1}
        if repeated:
            raise ValueError(f"volumes: {sorted(repeated)[0]!r} is there twice")
        for mount in self.mounts:
            if mount.path.rstrip("/") in ours.values():
                raise ValueError(f"mounts: at {mount.path} is a volume of Infill's own; mount {mount.name!r} elsewhere")
            if mount.name not in volumes:
                raise ValueError(f"mounts: {mount.name!r} is none of the volumes ({', '.join(volumes) or 'there are none'})")
            if paths.count(mount.path) > 1:
                raise ValueError(f"mounts: two volumes at {mount.path!r}")

    def _check_requests(self) -> None:
        check_requests(self.requests, cpus=self.cpus, memory=self.memory, ephemeral_storage=self.ephemeral_storage)
        if self.shared_memory and names.parsed(self.shared_memory) >= names.parsed(self.memory):
            raise ValueError(
                f"shared_memory: {self.shared_memory} leaves nothing of memory: {self.memory}, which it counts against"
            )


class HeadGroup(Group):
    """The head pod. It runs no tasks: its Ray has no CPUs."""


SMALLEST_GPU_MEMORY = Decimal(2**30)


class WorkerGroup(Group):
    """A group of like workers. A cluster whose autoscaler is on moves their number between `min_replicas` and `max_replicas`."""

    name: GroupName | None = None
    """Default: cpu, or gpu where `gpus` is given; a second one is cpu-2."""
    kind: Literal["cpu", "gpu"] = "cpu"
    """A gpu group has at least one accelerator."""
    replicas: Count | None = None
    """Number of workers of a cluster without autoscaler. Default 1."""
    min_replicas: Count = 0
    max_replicas: Count = 10
    idle_timeout_seconds: Count | None = None
    """After how many idle seconds the autoscaler removes a worker. Default: the cluster's."""

    @model_validator(mode="before")
    @classmethod
    def _gpus_make_a_gpu_group(cls, data: Any) -> Any:
        """``kind: gpu`` has 1 GPU, 8 CPUs and 16Gi unless it says otherwise, as on the seed page; ``gpus`` makes the kind gpu."""
        if not isinstance(data, Mapping):
            return data
        kind = data.get("kind") or ("gpu" if data.get("gpus") else "cpu")
        return {"gpus": 1, "cpus": "8", "memory": "16Gi", **data, "kind": kind} if kind == "gpu" else data

    @model_validator(mode="after")
    def _is_of_its_kind(self) -> Self:
        if self.kind == "gpu" and self.gpus < 1:
            raise ValueError("gpus: a gpu group has at least one; set gpus: 1, or kind: cpu")
        if self.kind == "cpu" and self.gpus:
            raise ValueError(f"gpus: a cpu group has none, and this one has {self.gpus}; set kind: gpu")
        if self.gpus and names.parsed(self.memory) < SMALLEST_GPU_MEMORY:
            raise ValueError(
                f"memory: {self.memory} is too little for a worker with a GPU, whose CUDA takes more; give 4Gi or more"
            )
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas: {self.min_replicas} is more than max_replicas: {self.max_replicas}")
        return self
