"""The fluent builders of manifests. Each call sets a field; `build` reads the files that are named and checks it whole.

`GenevaManifest` is the name that code written for LanceDB's Geneva uses.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from infra.secrets_in_specs import from_environment
from runner.errors import BadInput
from runner.manifests.manifest import DEFAULT_IMAGE, Manifest, load_manifest

Path_ = str | os.PathLike[str]


def _listed(given: Sequence[str | os.PathLike[str]]) -> Any:
    """A list; a text alone stays one, for `build` to refuse, instead of becoming a list of its letters."""
    return given if isinstance(given, str) else [str(each) for each in given]


class _ManifestBuilder:
    """What manifests of all kinds may have."""

    _kind: str

    def __init__(self, name: str) -> None:
        self._fields: dict[str, Any] = {"kind": self._kind, "name": name}

    @classmethod
    def create(cls, name: str) -> Self:
        """Geneva's other spelling of the constructor."""
        return cls(name)

    def _set(self, **fields: Any) -> Self:
        self._fields.update(copy.deepcopy(fields))
        return self

    def name(self, name: str) -> Self:
        return self._set(name=name)

    def version(self, version: str) -> Self:
        """A label for people; definitions have revisions of their own."""
        return self._set(version=version)

    def py_modules(self, modules: Sequence[str]) -> Self:
        """Folders or wheels of Python packages outside of site-packages."""
        return self._set(py_modules=_listed(modules))

    def add_py_module(self, module: str) -> Self:
        return self._set(py_modules=[*self._fields.get("py_modules", []), str(module)])

    def head_image(self, head_image: str) -> Self:
        """Container image of the head, in place of the cluster's."""
        return self._set(head_image=head_image)

    def default_head_image(self) -> Self:
        """Ray's image for the client's Ray and Python, in place of the cluster's."""
        return self._set(head_image=DEFAULT_IMAGE)

    def worker_image(self, worker_image: str, *, gpu: str | None = None) -> Self:
        """Container image of workers, in place of the cluster's.

        Args:
            gpu: another one for groups with GPUs.
        """
        return self._set(worker_image=worker_image, **({"gpu_worker_image": gpu} if gpu else {}))

    def default_worker_image(self) -> Self:
        """Ray's image for the client's Ray and Python and each group's platform, with CUDA where there are GPUs."""
        return self._set(worker_image=DEFAULT_IMAGE)

    def env_vars(self, env: Mapping[str, str]) -> Self:
        """Environment of workers; a value that is that of a variable of this environment is kept as ``${env:NAME}``."""
        return self._set(env_vars=from_environment(env))

    def working_dir(self, on: bool = True) -> Self:
        """Whether the workspace goes to workers."""
        return self._set(working_dir=on)

    def include(self, patterns: Sequence[str]) -> Self:
        """Patterns, as of .gitignore, of what goes in spite of the rules."""
        return self._set(include=_listed(patterns))

    def exclude(self, patterns: Sequence[str]) -> Self:
        """Patterns of what stays."""
        return self._set(exclude=_listed(patterns))

    def delete_local_zips(self, delete: bool) -> Self:
        """Whether to remove the packages' zip files once they are uploaded. Default True."""
        return self._set(delete_local_zips=delete)

    def local_zip_output_dir(self, folder: Path_) -> Self:
        """Folder for the zip files. Default: a temporary one."""
        return self._set(local_zip_output_dir=os.fspath(folder))

    def build(self) -> Manifest:
        """The manifest.

        Raises:
            BadInput: a file that is missing or wrong, or both a list and a path.
            infra.BadSpec: every other problem, with its field.
        """
        manifest = load_manifest(self._fields, Path.cwd(), f"manifest {self._fields['name']!r}")
        for problem in manifest.warnings():
            warnings.warn(f"manifest {manifest.name!r}: {problem}", stacklevel=2)
        return manifest


class PipManifestBuilder(_ManifestBuilder):
    """Requirements that pip installs when workers start."""

    _kind = "pip"

    def pip(self, packages: Sequence[str]) -> Self:
        """Requirements (PEP 508); or `requirements_path`."""
        self._one_of("pip", "requirements_path")
        return self._set(pip=_listed(packages))

    def requirements_path(self, path: Path_) -> Self:
        """A requirements file, read by `build`; or `pip`."""
        self._one_of("requirements_path", "pip")
        return self._set(requirements_path=os.fspath(path))

    def index_url(self, url: str) -> Self:
        """In place of PyPI. Credentials as ``${env:NAME}``."""
        return self._set(index_url=url)

    def extra_index_urls(self, urls: Sequence[str]) -> Self:
        """Beside PyPI. Credentials as ``${env:NAME}``."""
        return self._set(extra_index_urls=_listed(urls))

    def _one_of(self, given: str, other: str) -> None:
        if other in self._fields:
            raise BadInput(f"manifest {self._fields['name']!r}: both {other}() and {given}() are given; keep one")


class UvManifestBuilder(_ManifestBuilder):
    """Exact, hashed versions from a lock file, installed by uv."""

    _kind = "uv"

    def lock_path(self, path: Path_) -> Self:
        """A uv.lock or a pylock.toml, read by `build`."""
        return self._set(lock_path=os.fspath(path))


class CondaManifestBuilder(_ManifestBuilder):
    """A conda environment."""

    _kind = "conda"

    def conda(self, deps: Mapping[str, Any]) -> Self:
        """What an environment file holds: ``{"dependencies": [...]}``; or `conda_environment_path`."""
        if "conda_environment_path" in self._fields:
            raise BadInput(f"manifest {self._fields['name']!r}: both conda_environment_path() and conda() are given; keep one")
        return self._set(conda=dict(deps))

    def conda_environment_path(self, path: Path_) -> Self:
        """An environment.yml, read by `build`; or `conda`."""
        if "conda" in self._fields:
            raise BadInput(f"manifest {self._fields['name']!r}: both conda() and conda_environment_path() are given; keep one")
        return self._set(conda_environment_path=os.fspath(path))


class SiteManifestBuilder(_ManifestBuilder):
    """The site-packages of this machine, uploaded."""

    _kind = "site"


class ManifestFactory:
    """Where to begin: one method for each kind of manifest."""

    @staticmethod
    def create_pip(name: str) -> PipManifestBuilder:
        """Requirements that pip installs when workers start."""
        return PipManifestBuilder(name)

    @staticmethod
    def create_uv(name: str) -> UvManifestBuilder:
        """Exact, hashed versions from a lock file, installed by uv."""
        return UvManifestBuilder(name)

    @staticmethod
    def create_conda(name: str) -> CondaManifestBuilder:
        """A conda environment."""
        return CondaManifestBuilder(name)

    @staticmethod
    def create_site(name: str) -> SiteManifestBuilder:
        """The site-packages of this machine, uploaded."""
        return SiteManifestBuilder(name)


class GenevaManifest(ManifestFactory):
    """The name that Geneva knows the factory by."""
