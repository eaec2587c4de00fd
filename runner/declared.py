"""From a backfill as a file declares it to what a run starts. Whoever declares it uploads what a run needs, which has no client."""

from __future__ import annotations

import hashlib
import inspect
import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.backfill_body import Driver
from infra.errors import BadSpec
from infra.secrets_in_specs import OPTION_VARIABLE, resolved
from runner.environments.own_requirements import PINS, pins
from runner.errors import BadInput
from runner.remote.declared_driver import REQUEST
from runner.store import Store, split_options
from runner.targets import Request

if TYPE_CHECKING:
    from infra.backfill_spec import BackfillSpec
    from infra.spec import KubeRayClusterSpec
    from runner.environments.environment import Environment
    from runner.manifests.manifest import Manifest

SOURCES = "sources"
"""Where Infill's own source is, a zip file under its hash: below ``<database>/_runner/``."""
BOOTSTRAP, SOURCE = "INFILL_BOOTSTRAP", "INFILL_SOURCE"
DRIVER = "python -m runner.remote.declared_driver"


def prepare(spec: BackfillSpec, cluster: KubeRayClusterSpec, folder: Path, *, send: bool) -> tuple[KubeRayClusterSpec, Driver]:
    """The cluster of a backfill with its manifest's images and variables, and the driver that each run starts on it.

    Args:
        cluster: as it is declared.
        folder: that of the backfill's file, which the manifest's file is relative to.
        send: upload to the database what the run needs; without it the result is the same, and no run would find it.

    Raises:
        BadSpec: what the runner does not take, with the backfill's name.
        RunnerError: the database cannot be reached, or takes no packages.
    """
    from runner.context_choice import check_sent
    from runner.environments.runtime_env import environment, on_cluster

    what = f"backfill {spec.name!r}"
    try:
        Request(tuple(spec.columns), **spec.options)
        manifest = _manifest(spec, folder)
        wanted = environment(manifest, cluster.ray_init_kwargs)
        check_sent(cluster, wanted)
        if spec.code == "image":
            _check_baked(wanted)
    except BadInput as exc:
        raise BadSpec(f"{what}: {exc}") from None
    if not spec.standing:
        cluster = on_cluster(cluster, wanted, manifest)
        wanted = replace(wanted, secrets={})  # they are in the pods, by a Kubernetes Secret
    sent = _uploads(spec, cluster, wanted, send) if spec.code == "upload" else {}
    request = request_of(spec, manifest, wanted, {**sent, "references": wanted.secrets})
    declared = manifest.plain() if manifest else {}
    return cluster, _driver(spec, wanted, request, declared, send)


def request_of(spec: BackfillSpec, manifest: Manifest | None, wanted: Environment, uploads: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is to do, as plain values for `runner.remote.declared_driver.drive`. Nothing secret is in it."""
    return {
        "name": spec.name,
        "database": spec.database,
        "table": spec.table,
        "columns": list(spec.columns),
        "function": spec.function,
        "inputs": spec.inputs,
        "options": spec.options,
        "storage_options": spec.shown_options,
        "policy": spec.concurrency_policy if spec.schedule else "Allow",
        "cluster": spec.cluster,
        "manifest": manifest.name if manifest else None,
        "runtime_env": wanted.runtime_env,
        "uploads": dict(uploads),
    }


def _driver(spec: BackfillSpec, wanted: Environment, request: Mapping[str, Any], declared: Mapping[str, Any], send: bool) -> Driver:
    from runner.environments.runtime_env import with_requirements

    # The driver imports the function's module too, so it has what workers have.
    runtime_env = (with_requirements(wanted, pins()) if wanted.installer else wanted).runtime_env
    variables = {**runtime_env.get("env_vars", {}), REQUEST: json.dumps(request), PINS: " ".join(pins()), "PYTHONUNBUFFERED": "1"}
    if spec.code == "image":
        return Driver(DRIVER, {**runtime_env, "env_vars": variables}, declared)
    from runner.remote import bootstrap

    variables |= {SOURCE: json.dumps(_source(spec, send)), BOOTSTRAP: inspect.getsource(bootstrap)}
    return Driver(f'python -c "${BOOTSTRAP}"', {**runtime_env, "env_vars": variables}, declared)


def _manifest(spec: BackfillSpec, folder: Path) -> Manifest | None:
    """The manifest that a backfill names: in a file, in the database, or in itself."""
    from runner.manifests.manifest import load_manifest, read_manifest
    from runner.manifests.modules import check_modules

    given = spec.manifest
    if given is None:
        return None
    if isinstance(given, Mapping):
        found = load_manifest({"name": spec.name, **given}, folder, f"backfill {spec.name!r}: manifest")
    elif given.endswith((".yaml", ".yml", ".json")) or "/" in given:
        found = read_manifest(folder / given)
    else:
        from runner.connection import Connection

        found = Connection(spec.database, storage_options=_options(spec)).get_manifest(given)
    check_modules(found.py_modules, f"manifest {found.name!r}")
    return found


def _check_baked(wanted: Environment) -> None:
    given = [name for name, value in (("py_modules", wanted.modules), ("kind: site", wanted.site)) if value]
    if given:
        raise BadInput(f"code: image uploads nothing, and the manifest has {given[0]}; bake it into the image, or use code: upload")


def _options(spec: BackfillSpec) -> dict[str, str]:
    """The storage options of whoever declares it; what only the pods' Secrets hold, its own credentials stand for."""
    return {name: resolved(value) for name, value in spec.storage_options.items() if isinstance(value, str)}


def _uploads(spec: BackfillSpec, cluster: KubeRayClusterSpec, wanted: Environment, send: bool) -> dict[str, Any]:
    from runner.environments.worker_setup import uploads
    from runner.packages.package import this_python
    from runner.remote.places import platform_of

    store = Store(spec.database, _options(spec))
    return uploads(wanted, store, cluster.python_version or this_python(), platform_of(cluster), send=send)


def _source(spec: BackfillSpec, send: bool) -> dict[str, Any]:
    """Where a run finds Infill's own source, for `runner.remote.bootstrap`."""
    name, data = _own_source()
    store = Store(spec.database, _options(spec))
    if send and store.modified(f"{SOURCES}/{name}") is None:
        store.put(f"{SOURCES}/{name}", data)
    config, client_options = split_options(spec.shown_options)
    return {
        "url": store.url(SOURCES),
        "name": name,
        "config": config,
        "client_options": client_options,
        "prefix": OPTION_VARIABLE,
        "obstore": pins(("obstore",))[0],
    }


@cache
def _own_source() -> tuple[str, bytes]:
    """Infill's own source under its hash; not compressed, so that it has the same one wherever it was packed."""
    from runner.environments.worker_setup import own_source

    data = own_source(zipfile.ZIP_STORED)
    return f"{hashlib.sha256(data).hexdigest()}.zip", data
