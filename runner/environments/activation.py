"""A worker's process made to find what its environment says: variables, packages, the client's modules."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from infra.secrets_in_specs import resolved, variables
from runner.errors import EnvironmentFailed
from runner.manifests.modules import importable_from, is_package, linked
from runner.packages.unpack import ensure
from runner.store import Store


def activate(setup: Mapping[str, Any]) -> None:
    """Set variables, unpack packages once a node, and put them on ``sys.path``.

    Args:
        setup: plain values, for Ray to carry. ``env``: variables; ``references``: those that name variables of the node's own
            environment, as ``${env:NAME}``. Of this machine: ``paths`` (folders), ``local_modules``
            (paths). From the store, ``store`` (address and options): ``modules`` (name and package), ``workspace`` (package,
            paths in it for the front and for further back, working directory in it), ``site`` (packages).

    Raises:
        EnvironmentFailed: the node does not have a variable that one refers to.
        StorageError, PackageMissing, PackageChanged: see `runner.packages.unpack.ensure`.
    """
    os.environ.update(setup.get("env", {}))
    os.environ.update(_of_node(setup.get("references", {})))
    store = Store(*setup["store"]) if "store" in setup else None
    first, paths = _workspace(store, setup["workspace"]) if store and "workspace" in setup else ([], [])
    paths += [str(importable_from(module)) for module in setup.get("local_modules", ())]
    paths += _packages(store, setup) if store else []
    place = next((index for index, path in enumerate(sys.path) if path.endswith("site-packages")), len(sys.path))
    sys.path[place:place] = paths  # before what the image has installed
    sys.path[:0] = first
    sys.path.extend(path for path in setup.get("paths", ()) if path not in sys.path)


def _of_node(references: Mapping[str, str]) -> dict[str, str]:
    missing = sorted(set(variables(references)) - os.environ.keys())
    if missing:
        raise EnvironmentFailed(
            f"{', '.join(missing)}: not set on the worker's node, and ${{env:...}} of manifest, cluster or call refers to it; "
            "set it where the cluster's nodes are made (env of its groups)"
        )
    return dict(resolved(references))


def _workspace(store: Store, workspace: Sequence[Any]) -> tuple[list[str], list[str]]:
    package, first, paths, cwd = workspace
    root = ensure(store, package)
    os.chdir(root / cwd if (root / cwd).is_dir() else root)
    return [os.path.normpath(root / path) for path in first], [os.path.normpath(root / path) for path in paths]


def _packages(store: Store, setup: Mapping[str, Any]) -> Iterator[str]:
    for name, package in setup.get("modules", ()):
        folder = ensure(store, package)
        yield str(linked(name, package, folder) if is_package(name) else folder)
    for package in setup.get("site", ()):
        yield str(ensure(store, package))
