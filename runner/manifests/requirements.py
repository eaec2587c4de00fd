"""Requirements: read from files, parsed (PEP 508), and held against what Ray and the runner themselves need."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from runner.errors import BadInput

_HASH = re.compile(r"\s--hash[= ](\S+)")
_REFUSED = {
    "-e": "an editable install is a folder of this machine; give it to py_modules instead",
    "--editable": "an editable install is a folder of this machine; give it to py_modules instead",
    "-c": "constraints are not kept; write the pins into the requirements",
    "--constraint": "constraints are not kept; write the pins into the requirements",
    "-f": "a folder of wheels is not on the workers; use an index, or py_modules",
    "--find-links": "a folder of wheels is not on the workers; use an index, or py_modules",
}


@dataclass
class RequirementsFile:
    """What a requirements file says, with the files that it includes.

    Attributes:
        requirements: PEP 508, with ``--hash`` where the file gives them.
        extra_index_urls: from ``--extra-index-url``.
        index_url: from ``--index-url``.
        files: those that were read; one that is included twice counts once.
    """

    requirements: list[str] = field(default_factory=list)
    extra_index_urls: list[str] = field(default_factory=list)
    index_url: str | None = None
    files: set[Path] = field(default_factory=set)


def read_requirements(path: str | Path) -> RequirementsFile:
    """Read a requirements file and those that it includes with ``-r``.

    Raises:
        BadInput: a file that is missing or includes itself, a line that is no requirement, an option that has no meaning on a
            worker; with file and line.
    """
    found = RequirementsFile()
    _read(Path(path), found, ())
    return found


def included(lines: Iterable[str], folder: Path, where: str) -> list[str]:
    """The lines of a list, such as of pip within a conda environment, with the files read in that they include with ``-r``.

    Args:
        folder: what those files are relative to.
        where: what to call the list in a message.

    Returns:
        Options for indexes, then requirements.

    Raises:
        BadInput: see `read_requirements`.
    """
    found = RequirementsFile()
    for line in lines:
        _take(line, where, folder, found, ())
    index = [f"--index-url {found.index_url}"] if found.index_url else []
    return [*index, *(f"--extra-index-url {url}" for url in found.extra_index_urls), *found.requirements]


def _read(path: Path, found: RequirementsFile, within: tuple[Path, ...]) -> None:
    place = path.resolve()
    if place in within:
        raise BadInput(f"{path} includes itself, by way of {' -> '.join(str(one) for one in within)}")
    if place in found.files:
        return
    found.files.add(place)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        by = f" (included by {within[-1]})" if within else ""
        raise BadInput(f"cannot read the requirements {path}{by}: {getattr(exc, 'strerror', None) or exc}") from None
    for number, line in _lines(text):
        _take(line, f"{path}:{number}", path.parent, found, (*within, place))


def _take(line: str, where: str, folder: Path, found: RequirementsFile, within: tuple[Path, ...]) -> None:
    if not line.startswith("-"):
        parse(_HASH.sub("", line), where)
        found.requirements.append(line)
        return
    option = re.split(r"[\s=]", line, maxsplit=1)[0] if line.startswith("--") else line[:2]
    value = line.removeprefix(option).lstrip("= ")
    if option in ("-r", "--requirement"):
        _read(folder / value, found, within)
    elif option in ("-i", "--index-url"):
        found.index_url = value
    elif option == "--extra-index-url":
        found.extra_index_urls.append(value)
    elif option != "--require-hashes":
        raise BadInput(f"{where}: {option!r}: {_REFUSED.get(option, 'has no meaning on a worker; take it out')}")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Logical lines with their first line's number: continued ones joined, comments and blanks gone."""
    joined, first = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        first = first or number
        line = re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        joined += line
        if joined.strip():
            yield first, " ".join(joined.split())
        joined, first = "", 0
    if joined.strip():
        yield first, " ".join(joined.split())


def parse(text: str, where: str = "") -> Requirement:
    """A requirement.

    Raises:
        BadInput: it is none.
    """
    try:
        return Requirement(_HASH.sub("", text))
    except InvalidRequirement as exc:
        at = f"{where}: " if where else ""
        raise BadInput(f"{at}{text!r} is no requirement: {str(exc).splitlines()[0]}; write name==1.2.3") from None


def requirement_name(line: str) -> str:
    """The distribution that a line of a requirements file asks for, in its canonical spelling; empty for an option."""
    return "" if line.startswith("-") else canonicalize_name(parse(line).name)


def check_requirements(requirements: Iterable[str]) -> list[str]:
    """Refuse what cannot be installed together with Ray and the runner.

    Returns:
        Warnings: requirements without a pinned version.

    Raises:
        BadInput: no requirement, a package named twice, a pin that Ray or the runner does not take.
    """
    seen: dict[str, str] = {}
    warnings = []
    for text in requirements:
        wanted = parse(text)
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        name = canonicalize_name(wanted.name)
        if name in seen:
            raise BadInput(f"{wanted.name} is required twice: {seen[name]!r} and {text!r}; keep one")
        seen[name] = text
        _check_own(wanted, name)
        if wanted.url is None and pinned_version(wanted) is None:
            warnings.append(f"{text!r} has no pinned version: another day installs another one; write {wanted.name}==VERSION")
    return warnings


def pinned_version(wanted: Requirement) -> str | None:
    """The one version that a requirement takes, None where it takes several."""
    pins = [one.version for one in wanted.specifier if one.operator in ("==", "===") and not one.version.endswith(".*")]
    return pins[0] if pins else None


def _check_own(wanted: Requirement, name: str) -> None:
    pin = pinned_version(wanted)
    if name == "ray":
        running = metadata.version("ray")
        if not wanted.specifier.contains(running, prereleases=True):
            raise BadInput(f"{wanted} is not the Ray of the cluster and the client ({running}); leave ray out, it is there already")
    if pin is None:
        return
    for owner in ("ray", "infill"):
        for needed in own_requirements(owner):
            if canonicalize_name(needed.name) == name and not _takes(needed, pin):
                raise BadInput(
                    f"{wanted} does not fit {owner}, which needs {needed.name}{needed.specifier}; choose a version that does"
                )


def _takes(needed: Requirement, version: str) -> bool:
    try:
        return needed.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return True


def own_requirements(distribution: str) -> list[Requirement]:
    """What a distribution that is installed here needs at all, without its extras."""
    try:
        listed = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return []
    parsed = [Requirement(text) for text in listed]
    return [one for one in parsed if one.marker is None or ("extra" not in str(one.marker) and one.marker.evaluate())]
