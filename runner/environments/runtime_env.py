"""What workers run in: a manifest, the cluster's ray_init_kwargs and the call's own wishes as Ray's runtime_env. Pure functions.

Precedence: call > ray_init_kwargs > manifest > cluster. What a cluster says itself, the image and environment of its pods, is what
Ray starts from; `on_cluster` puts a manifest's images over it, and what is secret into it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any

from infra.secrets_in_specs import REFERENCE, from_environment, looks_secret, variables
from infra.spec import parse_spec
from runner.environments.environment import INSTALLERS, Environment
from runner.environments.own_requirements import SAME_VERSION
from runner.errors import BadInput
from runner.manifests.manifest import DEFAULT_IMAGE, Manifest, ManifestKind
from runner.manifests.requirements import parse, pinned_version, requirement_name

if TYPE_CHECKING:
    from infra.spec import KubeRayClusterSpec

KEEP_CACHE = "--disable-pip-version-check"
"""In place of Ray's own options of pip, which switch its cache off."""


def environment(
    manifest: Manifest | None = None,
    ray_init_kwargs: Mapping[str, Any] | None = None,
    runtime_env: Mapping[str, Any] | None = None,
) -> Environment:
    """What a manifest, a cluster's ``ray_init_kwargs`` and a call's ``runtime_env`` say together.

    Variables of ``env_vars`` go one by one; of pip, uv and conda the strongest wish alone; every other field as a whole.

    Raises:
        BadInput: a field with ``${env:NAME}`` that cannot have one.
    """
    wishes = [_of_manifest(manifest) if manifest else {}, (ray_init_kwargs or {}).get("runtime_env") or {}, runtime_env or {}]
    merged: dict[str, Any] = reduce(_over, wishes, {})
    env_vars = merged.pop("env_vars", {})
    secret = {
        name: value for name, value in from_environment(env_vars).items() if list(variables(value)) or looks_secret(name, value)
    }
    shown = {name: value for name, value in env_vars.items() if name not in secret}
    found = Environment(
        {"env_vars": shown} if shown else {},
        secret,
        expanded=tuple(sorted({name for installer in INSTALLERS for name in variables(merged.get(installer))})),
        site=manifest is not None and manifest.kind is ManifestKind.SITE,
    )
    found = _with_folders(found, merged, manifest)
    return replace(found, runtime_env={**found.runtime_env, **{name: _expandable(name, value) for name, value in merged.items()}})


def with_requirements(given: Environment, requirements: Sequence[str]) -> Environment:
    """`given` with requirements of ours, pinned, beside its own.

    Those that it names itself stay as they are; of pylance and pyarrow, which write files, ours takes the place of a looser one.

    Raises:
        BadInput: it wants another pylance or pyarrow; its conda environment is one of the nodes', which cannot be added to.
    """
    if not requirements:
        return given
    installer = given.installer or "pip"
    wanted = given.runtime_env.get(installer, [])
    if installer == "conda":
        return replace(given, runtime_env={**given.runtime_env, "conda": _conda_with(wanted, requirements)})
    options = dict(wanted) if isinstance(wanted, Mapping) else _options(installer, wanted)
    options["packages"] = _with_own(options["packages"], requirements)
    return replace(given, runtime_env={**given.runtime_env, installer: options})


def on_cluster(spec: KubeRayClusterSpec, given: Environment, manifest: Manifest | None = None) -> KubeRayClusterSpec:
    """A cluster as its workers are to run: a manifest's images, and as environment of the pods what `given` refers to.

    The image of a group is the manifest's, where it has one, else the cluster's. Values behind ``${env:NAME}`` become a
    Secret that is mounted in the pods, so that Ray never shows them.

    Raises:
        infra.BadSpec: the cluster does not take it.
    """
    plain = spec.plain()
    env = {**{name: f"${{env:{name}}}" for name in given.expanded}, **given.secrets}
    groups = [plain.setdefault("head_group", {}), *plain.setdefault("worker_groups", [{"name": "cpu"}])]
    images = [manifest.head_image, *(_worker_image(manifest, group) for group in groups[1:])] if manifest else [None] * len(groups)
    for group, image in zip(groups, images, strict=True):
        if image == DEFAULT_IMAGE:
            group.pop("image", None)
        elif image:
            group["image"] = image
        if env:
            group["env"] = {**group.get("env", {}), **env}
    where = f"cluster {spec.name!r}" + (f" with manifest {manifest.name!r}" if manifest else "")
    return parse_spec(plain, where)  # type: ignore[return-value]


def unused_here(manifest: Manifest) -> list[str]:
    """What of a manifest has no meaning where workers are processes on machines that run already."""
    images = {
        "head_image": manifest.head_image,
        "worker_image": manifest.worker_image,
        "gpu_worker_image": manifest.gpu_worker_image,
    }
    return [f"{name}: {image}" for name, image in images.items() if image]


def _worker_image(manifest: Manifest, group: Mapping[str, Any]) -> str | None:
    is_gpu = group.get("kind") == "gpu" or bool(group.get("gpus"))
    return manifest.gpu_worker_image or manifest.worker_image if is_gpu else manifest.worker_image


def _of_manifest(manifest: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = {"working_dir": manifest.working_dir, "excludes": list(manifest.exclude)}
    if manifest.env_vars:
        found["env_vars"] = dict(manifest.env_vars)
    if manifest.py_modules:
        found["py_modules"] = list(manifest.py_modules)
    if manifest.kind is ManifestKind.CONDA:
        found["conda"] = {name: value for name, value in manifest.conda.items() if name not in ("name", "prefix")}
    elif manifest.pip:
        # pip wants hashes of all or of none, and the runner's own requirements have none; uv checks those that there are.
        hashed = any(" --hash=" in line for line in manifest.pip)
        installer = "uv" if hashed or manifest.kind is ManifestKind.UV else "pip"
        found[installer] = _options(installer, [*_indexes(manifest), *manifest.pip])
    return found


def _indexes(manifest: Manifest) -> list[str]:
    own = [f"--index-url {manifest.index_url}"] if manifest.index_url else []
    return [*own, *(f"--extra-index-url {url}" for url in manifest.extra_index_urls)]


def _options(installer: str, packages: Sequence[str]) -> dict[str, Any]:
    own = {"pip_install_options": [KEEP_CACHE]} if installer == "pip" else {"uv_pip_install_options": list[str]()}
    return {"packages": list(packages), **own}


def _over(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in low.items() if name not in INSTALLERS or not any(name in high for name in INSTALLERS)}
    env_vars = {**low.get("env_vars", {}), **high.get("env_vars", {})}
    return {**kept, **high, **({"env_vars": env_vars} if env_vars else {})}


def _with_folders(found: Environment, merged: dict[str, Any], manifest: Manifest | None) -> Environment:
    """Take the local folders out of `merged`: Ray uploads none for an actor, and does not know what is secret in them."""
    folder, modules = merged.pop("working_dir", True), merged.pop("py_modules", [])
    exclude = merged.pop("excludes", [])
    remote: dict[str, Any] = {}
    if isinstance(folder, str) and "://" in folder:
        remote["working_dir"], folder = folder, False
    addresses = [str(each) for each in modules if "://" in str(each)]
    if addresses:
        remote["py_modules"] = addresses
    return replace(
        found,
        runtime_env={**found.runtime_env, **remote},
        workspace=bool(folder),
        folder=folder if isinstance(folder, str) else None,
        modules=tuple(str(each) for each in modules if "://" not in str(each)),
        include=tuple(manifest.include) if manifest else (),
        exclude=tuple(exclude),
        zip_folder=manifest.zip_folder if manifest else None,
        delete_zips=manifest.delete_local_zips if manifest else True,
    )


def _expandable(name: str, value: Any) -> Any:
    """References as the installers expand them themselves, from the environment of the node."""
    if not list(variables(value)):
        return value
    if name not in INSTALLERS:
        raise BadInput(f"runtime_env.{name}: ${{env:...}} works in env_vars, pip, uv and conda only; give it in env_vars")
    return _replaced(value)


def _replaced(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _replaced(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_replaced(item) for item in tree]
    return REFERENCE.sub(r"${\1}", tree) if isinstance(tree, str) else tree


def _with_own(packages: Iterable[str], requirements: Iterable[str]) -> list[str]:
    own = {requirement_name(line): line for line in requirements}
    kept = [line for line in packages if not _gives_way(line, own.get(requirement_name(line)))]
    named = {requirement_name(line) for line in kept}
    return [*kept, *(line for name, line in own.items() if name not in named)]


def _gives_way(line: str, own: str | None) -> bool:
    """Whether a requirement leaves its place to ours: what writes files has to be the client's version exactly."""
    if own is None or requirement_name(own) not in SAME_VERSION:
        return False
    wanted, (pin,) = parse(line), parse(own).specifier
    if not wanted.specifier.contains(pin.version, prereleases=True):
        raise BadInput(f"{line}: workers write files with {own}, as this client does; leave it out, or install that version here")
    return wanted.url is None and pinned_version(wanted) is None


def _conda_with(conda: Any, requirements: Sequence[str]) -> dict[str, Any]:
    if not isinstance(conda, Mapping):
        raise BadInput(
            f"runtime_env.conda: {conda!r} is an environment of the nodes, and it lacks {', '.join(requirements)}; install them "
            "there, or give the environment's content"
        )
    dependencies = list(conda.get("dependencies", []))
    inner: list[str] = next((each["pip"] for each in dependencies if isinstance(each, Mapping) and "pip" in each), [])
    rest = [each for each in dependencies if not (isinstance(each, Mapping) and "pip" in each)]
    if "pip" not in [str(each).partition("=")[0].strip() for each in rest]:
        rest.append("pip")
    return {**conda, "dependencies": [*rest, {"pip": _with_own(inner, requirements)}]}
