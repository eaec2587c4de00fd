"""From the names that a caller gives, of a cluster and a manifest, to the context that they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from runner import console
from runner.context import Context
from runner.errors import BadInput

if TYPE_CHECKING:
    from infra.spec import ClusterSpec
    from runner.connection import Connection
    from runner.manifest import Manifest

HERE = ("inline", "local")


def context_of(
    connection: Connection | None,
    cluster: str | ClusterSpec,
    manifest: str | Manifest | None,
    runtime_env: Mapping[str, Any] | None,
) -> Context:
    """The context of a cluster and a manifest; see `runner.Connection.context`.

    Raises:
        BadInput: no such cluster or manifest, or one that cannot be used here.
    """
    store = connection.store if connection else None
    if cluster in HERE and manifest is None and not runtime_env:
        return Context(str(cluster), store=store)
    from runner.runtime_env import environment

    spec = _spec(connection, cluster)
    kwargs = spec.ray_init_kwargs if spec else {}
    found = _manifest(connection, manifest)
    wanted = environment(found, kwargs, runtime_env)
    return Context(str(cluster) if spec is None else "local", environment=wanted, ray_init_kwargs=kwargs, store=store)


def _spec(connection: Connection | None, cluster: str | ClusterSpec) -> ClusterSpec | None:
    """The spec of a cluster, None for this process and for a Ray of this machine without one."""
    if cluster in HERE:
        return None
    try:
        spec = connection.get_cluster(cluster) if connection and isinstance(cluster, str) else cluster
    except BadInput as exc:
        raise BadInput(f"{exc}; 'inline' (this process) and 'local' (Ray on this machine) are there always") from None
    kind = getattr(spec, "kind", None)
    if kind is None:
        raise BadInput(f"cluster={cluster!r} is neither the name of a cluster nor its spec; .build() makes one")
    if kind != "local":
        raise BadInput(
            f"cluster {spec.name!r} is of kind {kind}, and contexts are of kind local so far; on a node of the cluster, a job of "  # type: ignore[union-attr]
            "its own for example, RAY_ADDRESS=auto and cluster='local' run there"
        )
    return spec  # type: ignore[return-value]


def _manifest(connection: Connection | None, manifest: str | Manifest | None) -> Manifest | None:
    from runner.manifest import Manifest
    from runner.modules import check_modules
    from runner.runtime_env import unused_here

    if manifest is None:
        return None
    found = connection.get_manifest(manifest) if connection and isinstance(manifest, str) else manifest
    if not isinstance(found, Manifest):
        hint = "; add .build()" if hasattr(found, "build") else ""
        raise BadInput(f"manifest={manifest!r} is neither the name of a manifest nor one{hint}")
    check_modules(found.py_modules, f"manifest {found.name!r}")
    for what in unused_here(found):
        console.say(f"manifest {found.name!r}: {what} is not used: workers run on machines that run already, in what those have")
    return found
