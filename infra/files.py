"""Specs as YAML files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import yaml

from infra.errors import BadSpec
from infra.spec import ClusterSpec, ExternalClusterSpec, KubeRayClusterSpec, LocalClusterSpec, parse_spec

# libyaml's are several times as fast, where PyYAML has them, and write the same but for characters that are rare.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_EMITTER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def read_spec(path: str | Path) -> ClusterSpec:
    """The spec that a YAML or JSON file holds.

    Raises:
        BadSpec: no such file, no YAML, or a wrong spec; with file, field and remedy.
    """
    return parse_spec(read_yaml(path), str(path))


def read_yaml(path: str | Path) -> Any:
    """What a YAML or JSON file holds.

    Raises:
        BadSpec: no such file, or no YAML.
    """
    try:
        return yaml.load(Path(path).read_text(), Loader=_LOADER)
    except OSError as exc:
        raise BadSpec(f"cannot read {path}: {exc.strerror or exc}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise BadSpec(f"{path} is not YAML: {' '.join(str(exc).split())}") from None


def yaml_files(folder: str | Path, what: str) -> list[Path]:
    """The ``*.yaml`` and ``*.yml`` files of a folder, in order.

    Args:
        what: they hold, for the message.

    Raises:
        BadSpec: no such folder.
    """
    place = Path(folder)
    if not place.is_dir():
        raise BadSpec(f"{place} is no folder; it is where the {what}' YAML files belong")
    return sorted([*place.glob("*.yaml"), *place.glob("*.yml")])


def read_folder(folder: str | Path) -> dict[str, ClusterSpec]:
    """The specs of all ``*.yaml`` and ``*.yml`` files of a folder, by name.

    Raises:
        BadSpec: every problem of every file; a name that two files use.
    """
    return {name: spec for name, (spec, _) in read_named(folder, "cluster", read_spec).items()}


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_Spec = TypeVar("_Spec", bound=_Named)


def read_named(folder: str | Path, what: str, read: Callable[[Path], _Spec]) -> dict[str, tuple[_Spec, Path]]:
    """What `read` makes of each ``*.yaml`` and ``*.yml`` file of a folder, by name, each with its file.

    Raises:
        BadSpec: no such folder; every problem of every file; a name that two files use.
    """
    found: dict[str, tuple[_Spec, Path]] = {}
    problems = []
    for file in yaml_files(folder, f"{what}s"):
        try:
            spec = read(file)
        except BadSpec as exc:
            problems.append(str(exc))
            continue
        if spec.name in found:
            problems.append(f"{file}: name: {spec.name!r} is that of {found[spec.name][1]} too; a {what} is known by its name")
        found[spec.name] = spec, file
    if problems:
        raise BadSpec("\n".join(problems))
    return found


def to_yaml(data: Any) -> str:
    """Plain data as YAML that every parser reads alike: what YAML 1.1 takes for a boolean or a number is quoted."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))


class _Dumper(_EMITTER):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _string(dumper: Any, text: str) -> Any:
    if "\n" in text:  # line by line, so that a diff of it is one of its lines
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
    style = '"' if text in ("y", "Y", "n", "N") or _is_number(text.replace("_", "")) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _is_number(text: str) -> bool:
    """Whether Go's parser (kubectl's) takes it for a number; PyYAML writes 08, 1e3 and 0o17 plain."""
    for read in (float, lambda text: int(text, 0)):
        try:
            read(text)
        except ValueError:
            continue
        return True
    return False


_Dumper.add_representer(str, _string)


def json_schema() -> dict[str, Any]:
    """JSON Schema of a cluster's file, for editors and CI."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(KubeRayClusterSpec | LocalClusterSpec | ExternalClusterSpec).json_schema()
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "ClusterSpec", **schema}
    return dict(json.loads(json.dumps(schema)))
