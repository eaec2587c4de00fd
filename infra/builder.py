"""The fluent builders of clusters. Each call sets a field of the spec; `build` checks it whole.

`GenevaCluster` and the other names of LanceDB's Geneva are aliases, so that its code runs with only the imports changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from infra.errors import BadSpec
from infra.groups import WorkerGroup
from infra.parts import K8sConfigMethod
from infra.secrets_in_specs import from_environment
from infra.spec import ClusterSpec, ExternalClusterSpec, KubeRayClusterSpec, LocalClusterSpec, parse_spec, warn_about


class Cluster:
    """Where to begin: one method for each kind of cluster.

    Examples:
        >>> Cluster.create_local("laptop").build().kind
        'local'
    """

    @staticmethod
    def create_kuberay(name: str) -> KubeRayClusterBuilder:
        """A cluster that KubeRay makes in Kubernetes."""
        return KubeRayClusterBuilder(name)

    @staticmethod
    def create_local(name: str) -> LocalRayClusterBuilder:
        """Ray on this machine."""
        return LocalRayClusterBuilder(name)

    @staticmethod
    def create_external(name: str, ray_address: str | None = None) -> ExternalRayClusterBuilder:
        """A cluster that others run, at ``ray://host:port`` or ``http://host:8265``."""
        builder = ExternalRayClusterBuilder(name)
        return builder if ray_address is None else builder.ray_address(ray_address)


class _Builder:
    """Fields given so far; a field is checked when the spec is built."""

    def __init__(self, **fields: Any) -> None:
        self._fields: dict[str, Any] = fields

    def _set(self, **fields: Any) -> Self:
        self._fields.update({key: value for key, value in fields.items() if value is not None})
        return self


class _ClusterBuilder(_Builder):
    _kind: str

    def __init__(self, name: str) -> None:
        super().__init__(name=name)

    @classmethod
    def create(cls, name: str) -> Self:
        """Geneva's other spelling of the constructor."""
        return cls(name)

    def name(self, name: str) -> Self:
        return self._set(name=name)

    def ray_init_kwargs(self, kwargs: Mapping[str, Any]) -> Self:
        """Arguments of ray.init, e.g. ``{"runtime_env": {"env_vars": {...}}}``.

        A value that is that of a variable of this environment is kept as ``${env:NAME}``; other secrets are refused by `build`.
        """
        runtime_env = kwargs.get("runtime_env")
        if isinstance(runtime_env, Mapping) and isinstance(runtime_env.get("env_vars"), Mapping):
            kwargs = {**kwargs, "runtime_env": {**runtime_env, "env_vars": from_environment(runtime_env["env_vars"])}}
        return self._set(ray_init_kwargs=dict(kwargs))

    def _built(self) -> ClusterSpec:
        spec = parse_spec({"kind": self._kind, **self._fields})
        warn_about(spec)
        return spec


class LocalRayClusterBuilder(_ClusterBuilder):
    """Ray on this machine."""

    _kind = "local"

    def build(self) -> LocalClusterSpec:
        """The spec.

        Raises:
            BadSpec: every problem with its field and value.
        """
        spec = self._built()
        assert isinstance(spec, LocalClusterSpec)
        return spec


class ExternalRayClusterBuilder(_ClusterBuilder):
    """A cluster that others run."""

    _kind = "external"

    @classmethod
    def create(cls, name: str, ray_address: str | None = None) -> Self:
        """Geneva's other spelling of the constructor."""
        return cls(name)._set(address=ray_address)

    def ray_address(self, address: str) -> Self:
        """``ray://host:port`` or ``http://host:8265``."""
        return self._set(address=address)

    def build(self) -> ExternalClusterSpec:
        """The spec.

        Raises:
            BadSpec: every problem with its field and value.
        """
        spec = self._built()
        assert isinstance(spec, ExternalClusterSpec)
        return spec


class WorkerBuilder(_Builder):
    """A group of workers. It counts without `build` too."""

    def name(self, name: str) -> Self:
        """Default: cpu or gpu, made unique."""
        return self._set(name=name)

    def image(self, image: str) -> Self:
        return self._set(image=image)

    def arch(self, arch: str) -> Self:
        """``"amd64"`` or ``"arm64"``."""
        return self._set(arch=arch)

    def cpus(self, cpus: int | float | str) -> Self:
        return self._set(cpus=cpus)

    def memory(self, memory: str) -> Self:
        """A quantity: ``"8Gi"``."""
        return self._set(memory=memory)

    def service_account(self, name: str) -> Self:
        return self._set(service_account=name)

    def node_selector(self, selector: Mapping[str, str]) -> Self:
        return self._set(node_selector=dict(selector))

    def labels(self, labels: Mapping[str, str]) -> Self:
        return self._set(labels=dict(labels))

    def add_label(self, key: str, value: str) -> Self:
        return self._set(labels={**self._fields.get("labels", {}), key: value})

    def annotations(self, annotations: Mapping[str, str]) -> Self:
        return self._set(annotations=dict(annotations))

    def tolerations(self, tolerations: Sequence[Mapping[str, Any]]) -> Self:
        return self._set(tolerations=[dict(toleration) for toleration in tolerations])

    def add_toleration(self, key: str, operator: str = "Equal", value: str = "", effect: str = "") -> Self:
        parts = {"key": key, "operator": operator, "value": value, "effect": effect}
        toleration = {name: part for name, part in parts.items() if part}
        return self._set(tolerations=[*self._fields.get("tolerations", []), toleration])

    def replicas(self, replicas: int) -> Self:
        """Number of workers of a cluster without autoscaler."""
        return self._set(replicas=replicas)

    def min_replicas(self, replicas: int) -> Self:
        return self._set(min_replicas=replicas)

    def max_replicas(self, replicas: int) -> Self:
        return self._set(max_replicas=replicas)

    def idle_timeout_seconds(self, seconds: int) -> Self:
        return self._set(idle_timeout_seconds=seconds)

    def env_vars(self, env: Mapping[str, Any]) -> Self:
        return self._set(env=from_environment(env))

    def add_env_var(self, name: str, value: str) -> Self:
        return self._set(env={**self._fields.get("env", {}), **from_environment({name: value})})

    def options(self, **fields: Any) -> Self:
        """Any other field of `WorkerGroup`, by name: ``options(shared_memory="2Gi")``."""
        return self._set(**fields)

    def build(self) -> WorkerGroup:
        """The group.

        Raises:
            BadSpec: every problem with its field and value.
        """
        return WorkerGroup.parse(self._fields)


class CpuWorkerBuilder(WorkerBuilder):
    """A group of CPU workers: 4 CPUs and 8Gi unless it says otherwise."""

    def __init__(self) -> None:
        super().__init__(kind="cpu")


class GpuWorkerBuilder(WorkerBuilder):
    """A group of GPU workers: 1 GPU, 8 CPUs and 16Gi unless it says otherwise."""

    def __init__(self, gpus: int = 1) -> None:
        super().__init__(kind="gpu", gpus=gpus)

    def gpus(self, gpus: int) -> Self:
        return self._set(gpus=gpus)

    def gpu_resource(self, name: str) -> Self:
        """The accelerator's resource name. Default ``nvidia.com/gpu``."""
        return self._set(gpu_resource=name)


class KubeRayClusterBuilder(_ClusterBuilder):
    """A cluster that KubeRay makes in Kubernetes."""

    _kind = "kuberay"

    @staticmethod
    def cpu_worker() -> CpuWorkerBuilder:
        return CpuWorkerBuilder()

    @staticmethod
    def gpu_worker(gpus: int = 1) -> GpuWorkerBuilder:
        return GpuWorkerBuilder(gpus)

    def namespace(self, namespace: str) -> Self:
        return self._set(namespace=namespace)

    def config_method(self, method: K8sConfigMethod) -> Self:
        """Where the access to Kubernetes comes from."""
        return self._set(config_method=method)

    def kubeconfig(self, path: str | None = None, context: str | None = None) -> Self:
        """For K8sConfigMethod.LOCAL. Default: KUBECONFIG, ~/.kube/config, and its current context."""
        return self._set(kubeconfig=path, context=context)

    def aws_config(self, region: str | None = None, role: str | None = None, cluster_name: str | None = None, *,
                   role_name: str | None = None) -> Self:  # fmt: skip
        """For K8sConfigMethod.EKS_AUTH.

        Args:
            role: to assume, a name or an ARN; `role_name` is Geneva's word for it.
            cluster_name: of the EKS cluster.
        """
        given = {"region": region, "role": role or role_name, "cluster_name": cluster_name}
        return self._set(aws_config={key: value for key, value in given.items() if value is not None})

    def head_group(self, *, env_vars: Mapping[str, Any] | None = None, **fields: Any) -> Self:
        """The head: any field of `HeadGroup` (image, cpus, memory, service_account, node_selector, labels, tolerations, ...).

        Args:
            env_vars: Geneva's word for ``env``.
        """
        given = {key: value for key, value in fields.items() if value is not None}
        return self._set(head_group={**given, **({"env": from_environment(env_vars)} if env_vars is not None else {})})

    def add_worker_group(self, group: WorkerGroup | WorkerBuilder) -> Self:
        """One more group of workers."""
        if not isinstance(group, WorkerGroup | WorkerBuilder):
            raise BadSpec(f"add_worker_group takes cpu_worker() or gpu_worker() and what they build, not {group!r}")
        built = group.build() if isinstance(group, WorkerBuilder) else group
        return self._set(worker_groups=[*self._fields.get("worker_groups", []), built.plain()])

    def options(self, **fields: Any) -> Self:
        """Any other field of `KubeRayClusterSpec`, by name: ``options(autoscaler={"enabled": False})``."""
        return self._set(**fields)

    def build(self) -> KubeRayClusterSpec:
        """The spec.

        Raises:
            BadSpec: every problem with its field and value.
        """
        spec = self._built()
        assert isinstance(spec, KubeRayClusterSpec)
        return spec


GenevaCluster = Cluster
