"""A conda environment as data: what an ``environment.yml`` holds."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.manifests.requirements import check_requirements, included

# name[=version[=build]], "name version", name>=version, name[version=...], each with or without channel::
_PACKAGE = re.compile(r"(?:\S+::)?(\w[\w.-]*)\s*((?:[\s=<>!~\[]\s*\S.*)?)")
_PYTHON = re.compile(r"(?:\S+::)?python[\s=]+(\d+(\.\d+)?)(\.\S*)?(=\S*)?")


def packages(environment: Mapping[str, Any]) -> list[str]:
    """Conda's own packages: ``numpy=2.1``."""
    return [each for each in environment.get("dependencies", []) if isinstance(each, str)]


def pip_lines(environment: Mapping[str, Any]) -> list[str]:
    """What pip installs into it: requirements, and options for indexes."""
    return [line for each in environment.get("dependencies", []) if isinstance(each, Mapping) for line in each.get("pip") or []]


def package_name(package: str) -> str:
    """``numpy`` of ``conda-forge::numpy>=2``; empty where it is no package."""
    found = _PACKAGE.fullmatch(package)
    return found[1].lower() if found else ""


def python_pins(environment: Mapping[str, Any]) -> dict[str, str]:
    """The Pythons that it pins, each with its major and minor: ``{"python=3.11.4": "3.11"}``."""
    pins = ((each, _PYTHON.fullmatch(each)) for each in packages(environment))
    return {each: pin[1] for each, pin in pins if pin}


def with_included(environment: Mapping[str, Any], folder: Path, where: str) -> dict[str, Any]:
    """`environment` with the requirements files read in that its pip part names with ``-r``, relative to `folder`.

    Raises:
        BadInput: a file that is missing or wrong, a line that is no requirement, an option that has no meaning on a worker.
    """
    dependencies = environment.get("dependencies")
    if not isinstance(dependencies, list):
        return dict(environment)
    read = [
        {**each, "pip": included(each["pip"], folder, where)} if isinstance(each, Mapping) and _is_texts(each.get("pip")) else each
        for each in dependencies
    ]
    return {**environment, "dependencies": read}


def check(environment: Mapping[str, Any]) -> list[str]:
    """Refuse what conda or its pip cannot install.

    Returns:
        Warnings: another Python than the client's; packages and requirements without a pinned version.

    Raises:
        ValueError: no environment, with the part that is wrong.
        BadInput: a requirement of its pip, as of `check_requirements`.
    """
    dependencies = environment.get("dependencies")
    if not isinstance(dependencies, list):
        raise ValueError("an environment has dependencies, a list: {dependencies: [numpy, {pip: [pillow]}]}")
    for each in dependencies:
        if isinstance(each, Mapping) and set(each) == {"pip"} and _is_texts(each["pip"]):
            continue
        if not isinstance(each, str) or not package_name(each):
            raise ValueError(f"{each!r} is no dependency; write name=1.2.3, or {{pip: [name==1.2.3]}}")
    loose = [each for each in packages(environment) if _is_loose(each)]
    warnings = [f"{each!r} has no pinned version: another day installs another one; write {each}=VERSION" for each in loose]
    lines = pip_lines(environment)
    if others := [line for line in lines if line.startswith("-") and line.split()[0] not in ("--index-url", "--extra-index-url")]:
        raise ValueError(f"pip: {others[0]!r} has no meaning on a worker; take it out")
    return [*_of_python(environment), *warnings, *check_requirements(line for line in lines if not line.startswith("-"))]


def _of_python(environment: Mapping[str, Any]) -> Iterator[str]:
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    for python in python_pins(environment).values():
        if python not in (running, str(sys.version_info.major)):
            yield (
                f"conda: python={python}, and Ray runs workers with the client's Python ({running}) only; "
                f"take a client and images of Python {python}, or drop the pin"
            )


def _is_loose(package: str) -> bool:
    found = _PACKAGE.fullmatch(package)
    # Ray has the say on Python, and pip comes with it.
    return found is not None and found[1].lower() not in ("python", "pip") and not found[2]


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
