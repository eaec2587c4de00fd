"""An `Environment` put in place for the workers of one Ray: what Ray is told, what the workers are told, what is uploaded."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from runner import console
from runner.environments.environment import Environment
from runner.environments.own_requirements import REQUIREMENTS, lacking, pins
from runner.environments.workspace import OURS, OURS_IN, own_paths
from runner.errors import BadInput
from runner.packages.package import this_python

if TYPE_CHECKING:
    from runner.store import Store


@dataclass(frozen=True)
class WorkerSetup:
    """How actors are made.

    Attributes:
        runtime_env: Ray's, of the actor.
        values: what `runner.environments.activation.activate` takes.
        source: a reference to Infill's source, where workers may not have it.
    """

    runtime_env: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    source: Any = None


def for_this_machine(environment: Environment, store: Store | None) -> WorkerSetup:
    """For a Ray of this machine alone: nothing is uploaded, workers find what this process finds.

    Raises:
        BadInput: the runtime_env is not one that Ray takes; a variable that the environment refers to is not set.
    """
    from runner.manifests.modules import uploaded

    values: dict[str, Any] = {"env": _secrets(environment), "paths": own_paths()}
    values["local_modules"] = [os.path.abspath(module) for module in environment.modules if not uploaded(module)]
    values["modules"] = [found for module in environment.modules if (found := uploaded(module))]
    if values["modules"] and store is not None:
        values["store"] = (store.uri, store.storage_options)
    return _setup(environment, values, needs_source=bool(environment.runtime_env))


def for_cluster(environment: Environment, store: Store, found: Mapping[str, Any]) -> WorkerSetup:
    """For a Ray of other machines: the workspace and all that the environment names is uploaded to the database.

    Args:
        found: what `runner.backfill.ray_worker.look` found on a worker.

    Raises:
        BadInput: as above; site-packages that do not run there; a workspace that cannot go.
        StorageError: the database takes no packages.
    """
    values = uploads(environment, store, found["python"], found["platform"])
    return on_workers(environment, store, {**values, "env": _secrets(environment)}, found)


def uploads(environment: Environment, store: Store, python: str, platform: str, *, send: bool = True) -> dict[str, Any]:
    """Upload what an environment names; what a worker is to be told of it, as plain values.

    Args:
        python, platform: the workers', such as ``3.11`` and ``linux-x86_64``.
        send: without it nothing is uploaded, and the result is the same.
    """
    from runner.environments.workspace import workspace
    from runner.manifests.modules import upload_modules, uploaded
    from runner.packages.package import build
    from runner.packages.upload import package_id_only, upload

    put = upload if send else package_id_only
    zips: dict[str, Any] = {"local_zip_output_dir": environment.zip_folder, "delete_local_zips": environment.delete_zips}
    values: dict[str, Any] = {"platform": platform}
    if environment.site:
        values["site"] = _upload_site(store, python, platform, put, zips)
    if environment.workspace:
        place = workspace(environment.folder)
        package = build(place.root, environment.include, environment.exclude)
        for warning in package.warnings:
            console.say(f"warning: {warning}")
        values["workspace"] = (put(package, store, console.say, **zips), place.first, place.paths, place.cwd)
    values["modules"] = [uploaded(module) for module in upload_modules(environment.modules, store, put, **zips)]
    return values


def on_workers(environment: Environment, store: Store, values: Mapping[str, Any], found: Mapping[str, Any]) -> WorkerSetup:
    """What `uploads` gave, for the workers of the Ray that this process is connected to."""
    if found["python"] != this_python():
        raise BadInput(
            f"workers run Python {found['python']}, and this is {this_python()}: functions do not travel between the two; give "
            "the workers an image of this Python, or run a client of theirs"
        )
    if values.get("site") and found["platform"] != values["platform"]:
        raise BadInput(
            f"workers run on {found['platform']}, and the site-packages that were sent are for {values['platform']}: what is built "
            "in them does not run there; take a manifest of kind pip, uv or conda"
        )
    told = {**values, "store": (store.uri, store.storage_options)}
    return _setup(_with_own(environment, found["versions"]), told, needs_source=True)


@cache
def own_source(compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip file of Infill's own packages, the same bytes for the same source."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for file in sorted(file for name in OURS for file in (OURS_IN / name).rglob("*.py")):
            info = zipfile.ZipInfo(file.relative_to(OURS_IN).as_posix())
            info.compress_type, info.external_attr = compression, 0o644 << 16
            archive.writestr(info, file.read_bytes())
    return packed.getvalue()


def _setup(environment: Environment, values: dict[str, Any], *, needs_source: bool) -> WorkerSetup:
    import ray

    if environment.installer:
        from runner.environments.runtime_env import with_requirements

        environment = with_requirements(environment, pins())
        _say_installed(environment)
    _check(environment.runtime_env)
    return WorkerSetup(environment.runtime_env, values, ray.put(own_source()) if needs_source else None)


def _with_own(environment: Environment, versions: Mapping[str, str | None]) -> Environment:
    """`environment` with what a cluster's workers lack of our own requirements."""
    if environment.installer:
        return environment  # gets all of them
    missing = lacking({name: metadata.version(name) for name in REQUIREMENTS}, dict(versions))
    if not missing:
        return environment
    from runner.environments.runtime_env import with_requirements

    has = ", ".join(f"{name} {versions[name] or 'not'}" for name in missing)
    console.say(f"workers lack what is installed here ({has}); a manifest with an image that has it saves the installation")
    return with_requirements(environment, pins(tuple(missing)))


def _upload_site(store: Store, python: str, platform: str, put: Callable[..., str], zips: dict[str, Any]) -> list[str]:
    from runner.packages.package import build
    from runner.packages.roots import site_packages
    from runner.packages.wheels import check_platform

    packages = []
    for folder in site_packages():
        # Workers run the Ray of their cluster, whatever lies beside it.
        package = build(folder, exclude=["/ray/", "/ray-*.dist-info/"], site=True)
        check_platform(package.listing, python, platform)
        packages.append(put(package, store, console.say, **zips))
    return packages


def _secrets(environment: Environment) -> dict[str, str]:
    if not environment.secrets:
        return {}
    from infra.errors import BadSpec
    from infra.secrets_in_specs import resolved

    try:
        return dict(resolved(environment.secrets))
    except BadSpec as exc:
        raise BadInput(f"env_vars: {exc}") from None


def _say_installed(environment: Environment) -> None:
    wanted = environment.runtime_env[environment.installer or ""]
    count = len(wanted["packages"] if "packages" in wanted else wanted.get("dependencies", []))
    console.say(f"workers install {count} requirements with {environment.installer} when they start, once a node")


def _check(runtime_env: dict[str, Any]) -> None:
    from ray.runtime_env import RuntimeEnv

    try:
        RuntimeEnv(**runtime_env)
    except (TypeError, ValueError) as exc:
        raise BadInput(f"runtime_env: Ray does not take it: {' '.join(str(exc).split())}") from None
