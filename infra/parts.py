"""The parts of a cluster's description that are the cluster's own and not of a group."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from infra import kubernetes_names as names
from infra.groups import Requests, SecretKey, check_requests
from infra.model import Bytes, Count, Image, Model, Quantity, SubdomainName


class K8sConfigMethod(StrEnum):
    """Where the access to Kubernetes comes from."""

    LOCAL = "LOCAL"
    """A kubeconfig: the spec's, KUBECONFIG, or ~/.kube/config."""
    EKS_AUTH = "EKS_AUTH"
    """AWS: `aws_config` names region and cluster."""
    IN_CLUSTER = "IN_CLUSTER"
    """The service account of the pod this runs in."""


class AwsConfig(Model):
    """The EKS cluster, for config method EKS_AUTH."""

    region: str | None = None
    """Default: AWS_REGION or the profile's."""
    role: str | None = None
    """Role to assume: a name or an ARN. Default: the caller's own."""
    cluster_name: str | None = None
    """Name of the EKS cluster."""


class AutoscalerOptions(Model):
    """Ray's autoscaler, a container beside the head."""

    enabled: bool = True
    version: Literal["v1", "v2"] = "v2"
    idle_timeout_seconds: Count = 60
    """After how many idle seconds a worker is removed."""
    upscaling_mode: Literal["Default", "Aggressive", "Conservative"] = "Default"
    cpus: Quantity = "500m"
    memory: Bytes = "512Mi"
    requests: Requests | None = None
    """Default: the limits."""
    image: Image | None = None
    """Default: the head's."""

    @model_validator(mode="after")
    def _requests_fit_limits(self) -> Self:
        check_requests(self.requests, cpus=self.cpus, memory=self.memory)
        return self


class GcsStorage(Model):
    """Volume of the embedded RocksDB."""

    claim_name: SubdomainName | None = None
    """A claim that exists. Default: KubeRay makes one of `size`."""
    size: Bytes | None = None
    storage_class: SubdomainName | None = None

    @model_validator(mode="after")
    def _claim_or_size(self) -> Self:
        if self.claim_name and (self.size or self.storage_class):
            raise ValueError("claim_name: a claim that exists has its size and class; drop size and storage_class")
        return self


class GcsFaultTolerance(Model):
    """What keeps the cluster's state while the head is replaced."""

    backend: Literal["redis", "rocksdb"] = "redis"
    """rocksdb is behind KubeRay's gate GCSFaultToleranceEmbeddedStorage."""
    redis_address: str | None = None
    """host:port."""
    redis_username: str | SecretKey | None = None
    redis_password: SecretKey | None = None
    external_storage_namespace: str | None = None
    """Default: the cluster's uid."""
    storage: GcsStorage | None = None

    @model_validator(mode="after")
    def _fits_backend(self) -> Self:
        redis = [
            key for key in ("redis_address", "redis_username", "redis_password", "external_storage_namespace") if getattr(self, key)
        ]
        if self.backend == "rocksdb" and redis:
            raise ValueError(f"{redis[0]}: belongs to backend redis, and the backend is rocksdb")
        if self.backend == "redis" and self.storage:
            raise ValueError("storage: belongs to backend rocksdb, and the backend is redis")
        if self.backend == "redis" and not self.redis_address:
            raise ValueError("redis_address: backend redis needs one: host:port")
        return self


class NetworkPolicy(Model):
    """Who may reach the cluster's pods: they themselves, KubeRay's operator, and these. All else that comes in is dropped."""

    from_namespaces: list[Annotated[str, AfterValidator(names.dns_1123)]] = Field(default_factory=list)
    """Namespaces whose pods may use dashboard, client and metrics ports."""
    from_blocks: list[Annotated[str, AfterValidator(names.address_block)]] = Field(default_factory=list)
    """Address blocks that may, e.g. the API server's, whose service proxy is how a client outside reaches the dashboard."""


class Scheduler(Model):
    """The batch scheduler that admits the cluster's pods together."""

    name: Literal["kueue", "volcano", "yunikorn"]
    queue: Annotated[str, AfterValidator(names.label_value), Field(min_length=1)]
    """Kueue's LocalQueue, Volcano's or YuniKorn's queue."""
    priority_class: Annotated[SubdomainName, AfterValidator(names.label_value)] | None = None


class UpgradeStrategy(StrEnum):
    """What a change of pods (image, size, environment, ...) does to the pods that run."""

    RECREATE = "Recreate"
    """The pods of each changed group are deleted and made anew; refused while jobs run, unless forced."""
    NONE = "None"
    """They stay as they are until something else ends them, as KubeRay does by itself."""
    NEW_CLUSTER = "NewCluster"
    """A new cluster beside the old; the Service's name goes over when it serves, and the old goes when its jobs are done."""
