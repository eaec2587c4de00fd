"""`Manifest`: the environment that a backfill's workers run in, as data. A database keeps it, a YAML file holds it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from infra.errors import BadSpec
from infra.model import EnvName, EnvText, Image, Model, Raw
from infra.secrets_in_specs import REFERENCE, referenced, referenced_tree
from runner.errors import BadInput
from runner.manifests import conda_environment
from runner.manifests.modules import uploaded
from runner.manifests.requirements import check_requirements, read_requirements

DEFAULT_IMAGE = "default"
"""Ray's image for the client's Ray and Python version, even where the cluster names another."""
LONGEST_NAME = 100

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_CREDENTIALS = re.compile(r"(\w+)://([^/?#\s]+)@")


class ManifestKind(StrEnum):
    """How dependencies get to workers."""

    PIP = "pip"
    """Installed by pip when workers start; nothing where no requirement is given."""
    UV = "uv"
    """Installed by uv from a lock file: exact and hashed."""
    CONDA = "conda"
    """A conda environment."""
    SITE = "site"
    """The site-packages of this machine, uploaded."""


def _valid_name(name: str) -> str:
    if len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
        raise ValueError(
            f"{name[:120]!r} is no name: at most {LONGEST_NAME} letters, digits, '-', '_' and '.', no '/' and no blanks"
        )
    return name


def _check_credentials(text: str) -> None:
    """Refuse an address with a password or token that is not ``${env:NAME}``; a user alone is fine for ssh."""
    for found in _CREDENTIALS.finditer(text):
        user, colon, password = REFERENCE.sub("", found[2]).partition(":")
        if password or (user and not colon and found[1] != "ssh"):
            masked = text.replace(found[2], "***")
            raise ValueError(
                f"{masked!r} has credentials in plain sight; write https://${{env:INDEX_USER}}:${{env:INDEX_TOKEN}}@..."
            )


def _index_url(url: str) -> str:
    _check_credentials(url)
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"{url!r} is no index; write https://host/simple")
    return url


IndexUrl = Annotated[str, AfterValidator(_index_url)]


class Manifest(Model):
    """What runs on a worker beside the runner itself."""

    name: Annotated[str, AfterValidator(_valid_name)]
    """What a database knows it by: at most 100 letters, digits, '-', '_' and '.'."""
    kind: ManifestKind = ManifestKind.PIP
    """How dependencies get to workers; `uv` and `conda` by themselves where a lock file or an environment file is given."""
    version: str | None = None
    """A label for people; definitions have revisions of their own."""
    pip: list[str] = Field(default_factory=list)
    """Requirements (PEP 508), of kind pip and uv. Credentials in addresses as `${env:NAME}`."""
    conda: Raw = Field(default_factory=dict)
    """A conda environment file's content, of kind conda."""
    index_url: IndexUrl | None = None
    """An index in place of PyPI. Credentials as `${env:NAME}`."""
    extra_index_urls: list[IndexUrl] = Field(default_factory=list)
    """Indexes beside it. Credentials as `${env:NAME}`."""
    py_modules: list[str] = Field(default_factory=list)
    """Packages outside of site-packages: folders, .py files and wheels of this machine; once defined ``name@package``, uploaded."""
    working_dir: bool = True
    """Whether the workspace goes to workers."""
    include: list[str] = Field(default_factory=list)
    """Patterns, as of .gitignore, of what goes in spite of the rules."""
    exclude: list[str] = Field(default_factory=list)
    """Patterns of what stays."""
    head_image: Image | None = None
    """Default: the cluster's. `DEFAULT_IMAGE` is Ray's, here and below."""
    worker_image: Image | None = None
    """Of all worker groups. Default: the cluster's."""
    gpu_worker_image: Image | None = None
    """Of worker groups with GPUs. Default: `worker_image`."""
    env_vars: dict[EnvName, EnvText] = Field(default_factory=dict)
    """Environment of workers; secrets as `${env:NAME}`."""
    delete_local_zips: bool = True
    """Remove the packages' zip files once they are uploaded."""
    local_zip_output_dir: str | None = None
    """Folder for the zip files. Default: a temporary one."""

    @field_validator("env_vars")
    @classmethod
    def _env_holds_no_secret(cls, env: dict[str, str]) -> dict[str, str]:
        return {name: referenced(name, value) for name, value in env.items()}

    @field_validator("pip")
    @classmethod
    def _can_be_installed(cls, requirements: list[str]) -> list[str]:
        for text in requirements:
            _check_credentials(text)
        check_requirements(requirements)
        return requirements

    @field_validator("conda")
    @classmethod
    def _is_environment(cls, conda: Raw) -> Raw:
        if conda:
            conda_environment.check(conda)
        for text in [*conda.get("channels", []), *conda_environment.pip_lines(conda)]:
            _check_credentials(str(text))
        return dict(referenced_tree(conda))

    @model_validator(mode="after")
    def _is_of_its_kind(self) -> Self:
        wrong = {
            "pip": self.pip and self.kind not in (ManifestKind.PIP, ManifestKind.UV),
            "conda": self.conda and self.kind is not ManifestKind.CONDA,
        }
        for field, given in wrong.items():
            if given:
                raise ValueError(f"{field}: belongs to another kind, and this manifest is of kind {self.kind}")
        if self.kind is ManifestKind.CONDA and not self.conda:
            raise ValueError("conda: a manifest of kind conda needs an environment")
        if not self.delete_local_zips and not self.local_zip_output_dir:
            raise ValueError("delete_local_zips: false needs local_zip_output_dir, a folder to keep them in")
        return self

    @property
    def zip_folder(self) -> Path | None:
        """`local_zip_output_dir` as a path."""
        return Path(self.local_zip_output_dir).expanduser() if self.local_zip_output_dir else None

    def warnings(self) -> list[str]:
        """What is allowed and may not do what is meant."""
        return [*check_requirements(self.pip), *(conda_environment.check(self.conda) if self.conda else [])]


def read_manifest(path: str | Path) -> Manifest:
    """The manifest that a YAML file holds; see `load_manifest`.

    Raises:
        BadInput: a file that is missing or wrong, or both a list and a path.
        infra.BadSpec: every other problem, with its field.
    """
    file = Path(path)
    return load_manifest(_yaml(file, str(file)), file.parent, str(file))


def load_manifest(data: Any, folder: Path, where: str = "") -> Manifest:
    """A manifest from plain data, with the files that it names read in, so that it means the same on another machine.

    Args:
        data: a mapping, the fields of `Manifest`; in place of ``pip`` or ``conda`` a ``requirements_path``, ``lock_path`` or
            ``conda_environment_path``; these and ``py_modules`` are relative to `folder`.
        where: what to call the data in a message: a file.

    Raises:
        BadInput: a file that is missing or wrong, or both a list and a path.
        infra.BadSpec: every other problem, with its field.
    """
    prefix = f"{where}: " if where else ""
    if not isinstance(data, Mapping):
        raise BadSpec(f"{prefix}a manifest is a mapping with a name, not {type(data).__name__}")
    plain = dict(data)
    if isinstance(modules := plain.get("py_modules"), list):
        plain["py_modules"] = [
            os.path.abspath(folder / Path(each).expanduser()) if isinstance(each, str) and not uploaded(each) else each
            for each in modules
        ]
    given = {field: field for field in ("pip", "conda") if plain.get(field)}
    for path_field, field in (("requirements_path", "pip"), ("lock_path", "pip"), ("conda_environment_path", "conda")):
        path = plain.pop(path_field, None)
        if path is None:
            continue
        if field in given:
            raise BadInput(f"{prefix}both {given[field]} and {path_field} are given; keep one")
        given[field] = path_field
        plain = _merged(plain, _READERS[path_field](folder / Path(str(path)).expanduser()), f"{prefix}{path_field}")
    if isinstance(conda := plain.get("conda"), Mapping):  # what an environment file includes is read in by then
        plain["conda"] = conda_environment.with_included(conda, folder, f"{prefix}conda")
    return Manifest.parse(plain, where)


def json_schema() -> dict[str, Any]:
    """JSON Schema of a manifest's file, for editors and CI."""
    schema = Manifest.model_json_schema()
    for field, what in _PATHS.items():
        schema["properties"][field] = {"type": "string", "description": f"{what}, relative to this file; read when it is defined."}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _merged(plain: dict[str, Any], read: dict[str, Any], where: str) -> dict[str, Any]:
    """Fields that are given with those that a file says; indexes of both."""
    for field in ("kind", "index_url"):
        if field in read and plain.get(field, read[field]) != read[field]:
            what = "has another index_url" if field == "index_url" else f"belongs to kind {read[field]}"
            raise BadInput(f"{where}: {what}, and this manifest has {field}: {plain[field]}")
    extra = [*plain.get("extra_index_urls", []), *read.get("extra_index_urls", [])]
    return {**plain, **read, **({"extra_index_urls": extra} if extra else {})}


def _from_requirements(path: Path) -> dict[str, Any]:
    read = read_requirements(path)
    found: dict[str, Any] = {"pip": read.requirements}
    if read.extra_index_urls:
        found["extra_index_urls"] = read.extra_index_urls
    return {**found, **({"index_url": read.index_url} if read.index_url else {})}


def _from_conda(path: Path) -> dict[str, Any]:
    environment = _yaml(path, f"the conda environment {path}")
    if not isinstance(environment, dict):
        raise BadInput(f"{path} is no conda environment: it has no dependencies")
    return {"kind": "conda", "conda": conda_environment.with_included(environment, path.parent, str(path))}


def _yaml(path: Path, what: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text())
    except OSError as exc:
        raise BadInput(f"cannot read {what}: {exc.strerror or exc}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise BadInput(f"{path} is not YAML: {' '.join(str(exc).split())}") from None


def _from_lock(path: Path) -> dict[str, Any]:
    from runner.manifests.locks import read_lock

    return {"kind": "uv", "pip": read_lock(path)}


_READERS = {"requirements_path": _from_requirements, "conda_environment_path": _from_conda, "lock_path": _from_lock}
_PATHS = {
    "requirements_path": "A requirements file, in place of pip",
    "conda_environment_path": "An environment.yml, in place of conda",
    "lock_path": "A uv.lock or pylock.toml, in place of pip; kind uv",
}
