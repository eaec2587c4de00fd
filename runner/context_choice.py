"""From the names that a caller gives, of a cluster and a manifest, to the context that they mean."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from runner import console
from runner.context import Context
from runner.errors import BadInput
from runner.exit_mode import ExitMode
from runner.local_context import LocalContext
from runner.store import secret_options

if TYPE_CHECKING:
    from infra.spec import ClusterSpec, KubeRayClusterSpec
    from runner.connection import Connection
    from runner.environments.environment import Environment
    from runner.manifests.manifest import Manifest
    from runner.remote.places import Place
    from runner.store import Store

HERE = ("inline", "local")
"""Clusters that are there always: this process, and Ray on this machine."""


@dataclass(frozen=True)
class Wishes:
    """What a caller of `runner.Connection.context` asks for besides cluster and manifest; see there."""

    runtime_env: Mapping[str, Any] | None = None
    on_exit: ExitMode | str = ExitMode.DELETE
    wait_timeout: float | None = None
    reuse: str = "match"
    time_to_live: float | None = None
    stack: str | None = None

    @property
    def exit_mode(self) -> ExitMode:
        """
        Raises:
            BadInput: there is no such mode.
        """
        try:
            return ExitMode(str(self.on_exit).lower())
        except ValueError:
            modes = ", ".join(f"ExitMode.{mode.name}" for mode in ExitMode)
            raise BadInput(f"on_exit={self.on_exit!r} is none of {modes}") from None


def context_of(
    connection: Connection | None, cluster: str | ClusterSpec, manifest: str | Manifest | None, wishes: Wishes
) -> Context:
    """The context of a cluster and a manifest; see `runner.Connection.context`.

    Raises:
        BadInput: no such cluster or manifest, or one that cannot be used here.
    """
    store = connection.store if connection else None
    mode = wishes.exit_mode
    if cluster in HERE and manifest is None and not wishes.runtime_env and not wishes.stack:
        return LocalContext(str(cluster), store=store)
    from runner.environments.runtime_env import environment

    spec, ray_cluster = _of_stack(wishes.stack, cluster) if wishes.stack else (_spec(connection, cluster), None)
    found = _manifest(connection, manifest)
    kwargs = spec.ray_init_kwargs if spec else {}
    wanted = environment(found, kwargs, wishes.runtime_env)
    if spec is None or spec.kind == "local":
        _say_unused(found)
        kind = str(cluster) if spec is None else "local"
        return LocalContext(kind, environment=wanted, ray_init_kwargs=kwargs, store=store)
    if store is None:
        raise BadInput(f"cluster {spec.name!r} keeps its jobs in a database; use db.context(...)")
    from runner.remote.cluster_context import ClusterContext

    check_sent(spec, wanted)
    place, wanted = _place(store, spec, ray_cluster, found, wanted, wishes)
    name = found.name if found else None
    return ClusterContext(store, place, wanted, manifest=name, on_exit=mode, wait_timeout=wishes.wait_timeout)


def _spec(connection: Connection | None, cluster: str | ClusterSpec) -> ClusterSpec | None:
    """The spec of a cluster, None for this process and for a Ray of this machine without one."""
    from infra.spec import ClusterSpec, ExternalClusterSpec

    if isinstance(cluster, ClusterSpec):
        return cluster
    if not isinstance(cluster, str):
        hint = "; add .build()" if hasattr(cluster, "build") else ""
        raise BadInput(f"cluster={cluster!r} is neither the name of a cluster, nor an address, nor a spec{hint}")
    if cluster in HERE:
        return None
    if connection is None:
        raise BadInput(f"cluster={cluster!r} needs a database that knows it; use db.context(...)")
    if "://" in cluster:
        return ExternalClusterSpec(name="external", address=cluster)
    try:
        return connection.get_cluster(cluster)
    except BadInput as exc:
        raise BadInput(f"{exc}; 'inline' (this process) and 'local' (Ray on this machine) are there always") from None


def _of_stack(stack: str, cluster: str | ClusterSpec) -> tuple[ClusterSpec, str]:
    from runner.remote.stack_outputs import cluster_of_stack

    if cluster != "local":
        raise BadInput(f"both cluster={cluster!r} and stack={stack!r} are given; keep one")
    return cluster_of_stack(stack)


def _manifest(connection: Connection | None, manifest: str | Manifest | None) -> Manifest | None:
    from runner.manifests.manifest import Manifest
    from runner.manifests.modules import check_modules

    if manifest is None:
        return None
    found = connection.get_manifest(manifest) if connection and isinstance(manifest, str) else manifest
    if not isinstance(found, Manifest):
        hint = "; add .build()" if hasattr(found, "build") else ""
        raise BadInput(f"manifest={manifest!r} is neither the name of a manifest nor one{hint}")
    check_modules(found.py_modules, f"manifest {found.name!r}")
    return found


def _say_unused(manifest: Manifest | None) -> None:
    from runner.environments.runtime_env import unused_here

    for what in unused_here(manifest) if manifest else ():
        console.say(f"manifest {manifest.name!r}: {what} is not used: workers run on machines that run already, in what those have")  # type: ignore[union-attr]


def check_sent(spec: ClusterSpec, wanted: Environment) -> None:
    """Refuse what cannot reach a cluster whose driver is not this process, or what cannot run there."""
    from infra.secrets_in_specs import variables
    from runner.environments.own_requirements import pins
    from runner.environments.runtime_env import with_requirements

    if wanted.installer:
        with_requirements(wanted, pins())  # as the driver will do it
    plain = sorted(name for name, value in wanted.secrets.items() if not list(variables(value)))
    if plain:
        raise BadInput(
            f"runtime_env.env_vars: {', '.join(plain)} look like secrets, and the driver on cluster {spec.name!r} could be given "
            "them in plain sight only; set them as variables here and write ${env:NAME}"
        )
    others = sorted(name for name in spec.ray_init_kwargs if name != "runtime_env")
    if others:
        raise BadInput(
            f"cluster {spec.name!r}: ray_init_kwargs: {', '.join(others)} have no meaning there: its Ray is initialised by the "
            "driver, which takes runtime_env only; drop them"
        )


def _place(
    store: Store, spec: ClusterSpec, ray_cluster: str | None, manifest: Manifest | None, wanted: Environment, wishes: Wishes
) -> tuple[Place, Environment]:
    """Where drivers run, and what is left of the environment for Ray to make."""
    from infra.secrets_in_specs import variables
    from infra.spec import ExternalClusterSpec, KubeRayClusterSpec
    from runner.remote.places import RayClient, Standing

    if isinstance(spec, KubeRayClusterSpec) and ray_cluster is None:
        return _on_demand(store, spec, manifest, wanted, wishes)
    _say_unused(manifest)
    if isinstance(spec, ExternalClusterSpec) and spec.address.startswith("ray://"):
        known = {name: os.environ[name] for name in variables(wanted.secrets) if name in os.environ}
        return RayClient(spec.name, spec.address, secret_options(store), known), wanted
    _say_secrets_stay(store, spec)
    return Standing(spec.name, spec, ray_cluster), wanted


def _on_demand(
    store: Store, spec: KubeRayClusterSpec, manifest: Manifest | None, wanted: Environment, wishes: Wishes
) -> tuple[Place, Environment]:
    from runner.environments.runtime_env import on_cluster
    from runner.provision.life import TIME_TO_LIVE
    from runner.remote.places import OnDemand

    keep = wishes.exit_mode is ExitMode.RETAIN
    default = None if keep else TIME_TO_LIVE
    time_to_live = default if wishes.time_to_live is None else wishes.time_to_live
    place = OnDemand(
        store,
        on_cluster(spec, wanted, manifest),
        reuse=wishes.reuse,
        time_to_live=time_to_live,
        keep=keep,
        secrets=secret_options(store),
    )
    return place, replace(wanted, secrets={})  # they are in the pods, by a Kubernetes Secret


def _say_secrets_stay(store: Store, spec: ClusterSpec) -> None:
    secrets = secret_options(store)
    if secrets:
        console.say(
            f"cluster {spec.name}: {', '.join(secrets)} stay here, as Ray would show them; its drivers use the credentials that "
            "their node has"
        )
