"""Remove packages that nobody used for long, and layers that no other package has."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from runner.definitions import MANIFESTS, Definitions
from runner.errors import StorageError
from runner.manifests.modules import uploaded
from runner.packages.format import FOLDER, LAYERS, PackageRecord, layer_path, package_path
from runner.store import Store

_AT_A_TIME = 8


@dataclass(frozen=True)
class Collected:
    """An object that is removed, or would be.

    Attributes:
        path: relative to ``<database>/_runner/``.
        used: when it was last written or known to be in use.
    """

    path: str
    bytes: int
    used: dt.datetime


def collect(store: Store, older_than: dt.timedelta, dry_run: bool = False) -> list[Collected]:
    """Remove what was not used for a time; uploading a package, or unpacking it on another node, is a use of it.

    The py_modules of manifests that are defined now stay, however old.

    A layer goes when it is older itself and no younger package has it, so one that an upload has just sent stays.

    Args:
        dry_run: remove nothing, and return what would be removed.

    Returns:
        Packages, then layers.
    """
    before = dt.datetime.now(dt.UTC) - older_than
    found = [Collected(*stored) for stored in store.times(FOLDER)]
    layers = [one for one in found if one.path.startswith(f"{LAYERS}/")]
    packages = [one for one in found if not one.path.startswith(f"{LAYERS}/")]
    kept = _of_manifests(store)
    old = sorted((one for one in packages if one.used < before and one.path not in kept), key=lambda one: one.path)
    if not dry_run:
        store.delete(one.path for one in old)
    # Read after the layers were listed: an upload that began later sends what it misses, or sees it go and sends it again.
    stay = [path for path, _, used in store.times(FOLDER) if (used >= before or path in kept) and not path.startswith(f"{LAYERS}/")]
    used_layers = _layers_of(store, stay)
    unused = sorted((one for one in layers if one.used < before and one.path not in used_layers), key=lambda one: one.path)
    if not dry_run:
        store.delete(one.path for one in unused)
    return [*old, *unused]


def _of_manifests(store: Store) -> set[str]:
    modules = [module for found in Definitions(store, MANIFESTS).current() for module in (found.spec or {}).get("py_modules", [])]
    return {package_path(found[1]) for module in modules if (found := uploaded(module))}


def _layers_of(store: Store, packages: list[str]) -> set[str]:
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        return {path for paths in pool.map(lambda package: _paths(store, package), packages) for path in paths}


def _paths(store: Store, package: str) -> list[str]:
    data = store.get(package)
    if data is None:
        return []
    try:
        return [layer_path(layer.id) for layer in PackageRecord.from_json(data).layers]
    except ValueError as exc:
        raise StorageError(f"{store.url(package)} cannot be read, so which layers it needs is not known: {exc}; remove it") from exc
