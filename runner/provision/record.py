"""What the database keeps of a cluster that it has provisioned: ``_runner/provisioned/<name>.json``, from before the first object
is made until after the last one is gone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from runner.remote.remote_driver import SECRET_OPTIONS
from runner.store import Store

if TYPE_CHECKING:
    from infra.spec import KubeRayClusterSpec

FOLDER = "provisioned"
OPTIONS_KEY = "options"
State = Literal["making", "made", "removing"]

# Of a spec: how whoever gives it reaches Kubernetes and how long they wait. Two may differ in it and mean the same cluster.
ACCESS_FIELDS = (
    "config_method",
    "aws_config",
    "kubeconfig",
    "context",
    "ready_timeout_seconds",
    "unschedulable_seconds",
    "ray_init_kwargs",
    "upgrade_strategy",
)


@dataclass(frozen=True)
class Record:
    """A provisioned cluster.

    Attributes:
        kubernetes: address of the API server, as its maker knew it; empty within a pod.
        project, stack: of Pulumi.
        spec: plain data, as it was provisioned.
        state: ``making`` and ``removing`` are over when the client that does it is, whether it was done or not.
        keep: the end of the last lease does not delete it.
        time_to_live: seconds that each renewal gives; None for ever.
        owner: uid of the Job that owns all of it; empty until that is made.
        made_at: UTC, ISO 8601.
    """

    name: str
    namespace: str
    kubernetes: str
    project: str
    stack: str
    spec: dict[str, Any]
    keep: bool
    time_to_live: float | None
    made_at: str
    user: str
    host: str
    state: State = "making"
    owner: str = ""

    @property
    def made(self) -> str:
        """When and by whom, for people."""
        return f"{self.made_at} by {self.user} on {self.host}"

    @property
    def label(self) -> str:
        """Value of `infra.labels.STACK` on its objects."""
        from infra.labels import label_of_stack

        return label_of_stack(self.project, self.stack)

    def cluster_spec(self) -> KubeRayClusterSpec:
        """The spec as it was provisioned."""
        from infra.spec import KubeRayClusterSpec, parse_spec

        spec = parse_spec(self.spec, f"provisioned cluster {self.name}")
        assert isinstance(spec, KubeRayClusterSpec)
        return spec


class Records:
    """The records of a database."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, name: str) -> Record | None:
        data = self._store.get(_path(name))
        return Record(**json.loads(data)) if data else None

    def put(self, record: Record) -> None:
        self._store.put(_path(record.name), json.dumps(dataclasses.asdict(record), indent=1).encode())

    def delete(self, name: str) -> None:
        self._store.delete([_path(name)])

    def all(self) -> list[Record]:
        """By name."""
        names = (path.removeprefix(f"{FOLDER}/").removesuffix(".json") for path, _ in self._store.objects(FOLDER))
        found = (self.get(name) for name in sorted(names))
        return [record for record in found if record is not None]


def project_of(store: Store) -> str:
    """Pulumi's project of the on-demand clusters of a database; on another machine a local database may have another one, and the
    record says which."""
    return f"infill-{hashlib.sha256(store.uri.encode()).hexdigest()[:8]}"


def stack_of(namespace: str, cluster: str) -> str:
    """Pulumi's stack of an on-demand cluster."""
    return f"{namespace}.{cluster}"


def as_provisioned(spec: KubeRayClusterSpec, *, has_options: bool = False) -> KubeRayClusterSpec:
    """The spec whatever machine provisions it, and as a cluster that is never changed in place.

    Args:
        has_options: the head has secret storage options, in the variable `SECRET_OPTIONS`.
    """
    from infra.groups import SecretKey
    from infra.images import client_python_version
    from infra.parts import UpgradeStrategy

    head = spec.head_group
    if not spec.autoscaler.enabled and not head.service_account:
        head = head.model_copy(update={"service_account": _own_account(spec)})
    if has_options:
        options = SecretKey(secret=options_secret(spec.name), key=OPTIONS_KEY)
        head = head.model_copy(update={"env": {**head.env, SECRET_OPTIONS: options}})
    fixed: dict[str, Any] = {
        "ray_version": spec.ray,
        "python_version": spec.python_version or client_python_version(),
        "upgrade_strategy": UpgradeStrategy.RECREATE,
        "head_group": head,
    }
    return spec.model_copy(update=fixed)


def options_secret(cluster: str) -> str:
    """Name of the Secret of `SECRET_OPTIONS`."""
    return f"{cluster}-storage"


def head_account(spec: KubeRayClusterSpec) -> tuple[str, bool]:
    """The service account of the head of a spec `as_provisioned`, and whether it is ours to make; with an autoscaler KubeRay makes
    one of the cluster's name where none is given."""
    name = spec.head_group.service_account or spec.name
    return name, name == _own_account(spec)


def _own_account(spec: KubeRayClusterSpec) -> str:
    return f"{spec.name}-head"


def spec_differences(provisioned: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Fields of two plain specs that differ, as ``field: provisioned -> given``; how Kubernetes and storage are reached apart."""
    return list(_compared("", _without_access(provisioned), _without_access(given)))


def _without_access(plain: Mapping[str, Any]) -> dict[str, Any]:
    left = {key: value for key, value in plain.items() if key not in ACCESS_FIELDS}
    head = dict(left.get("head_group") or {})
    env = {key: value for key, value in (head.pop("env", None) or {}).items() if key != SECRET_OPTIONS}
    return {**left, "head_group": {**head, "env": env}}


def _compared(path: str, before: Any, after: Any) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            yield from _compared(f"{path}.{key}" if path else str(key), before.get(key), after.get(key))
    elif isinstance(before, list) and isinstance(after, list) and _all_named([*before, *after]):
        yield from _compared(path, {item["name"]: item for item in before}, {item["name"]: item for item in after})
    elif before != after:
        yield f"{path}: {_short(before)} -> {_short(after)}"


def _all_named(items: list[Any]) -> bool:
    return all(isinstance(item, Mapping) and "name" in item for item in items)


def _short(value: Any) -> str:
    text = "nothing" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _path(name: str) -> str:
    return f"{FOLDER}/{name}.json"
