"""Which packages of a site-packages folder would break with another Python or on another platform than this one's."""

from __future__ import annotations

import email.parser
import re
from collections.abc import Iterable, Iterator

from runner.errors import BadInput
from runner.packages.format import FILE
from runner.packages.scan import Entry, Listing

_INTERPRETER = re.compile(r"(cp|pp|py)(\d)(\d*)")
_EXTENSION = re.compile(r"\.(?:cpython|cp)-?(\d)(\d+)(?:t|d)?-([\w-]+)\.(?:so|pyd)$")
_MACHINES = {"amd64": "x86_64", "aarch64": "arm64", "win32": "x86"}


def check_platform(listing: Listing, python: str, platform: str) -> None:
    """Refuse built packages that do not run on workers.

    Args:
        python: the workers' Python, such as ``3.11``.
        platform: theirs: ``linux-x86_64``, ``linux-aarch64``, ``musllinux-x86_64``, ``darwin-arm64``, ``win32-amd64``.

    Raises:
        BadInput: names every package that would break, with what it was built for.
    """
    found = foreign(listing, python, platform)
    if found:
        lines = "\n".join(f"  {name}: built for {tags}" for name, tags in found)
        raise BadInput(
            f"{listing.root}: {len(found)} packages are not built for the workers' Python {python} on {platform}:\n{lines}\n"
            "Give workers these requirements by a manifest of kind pip, uv or conda, or run this on their platform and Python"
        )


def foreign(listing: Listing, python: str, platform: str) -> list[tuple[str, str]]:
    """``(package, what it was built for)`` of each that would break, sorted."""
    version = tuple(int(part) for part in python.split(".")[:2])
    wheels = [entry for entry in listing.entries if entry.kind == FILE and entry.path.endswith(".dist-info/WHEEL")]
    found = {}
    for entry in wheels:
        tags = _tags(listing.file(entry))
        if tags and not any(_runs(tag, version, platform) for tag in tags):
            found[_package(entry)] = ", ".join(tags)
    loose = [entry for entry in listing.entries if _breaks(entry, version, platform)]
    if loose:
        owned = set(_owned(listing, wheels))
        found.update((entry.path, _EXTENSION.search(entry.path)[0].strip(".")) for entry in loose if entry.path not in owned)  # type: ignore[index]
    return sorted(found.items())


def _package(entry: Entry) -> str:
    name, _, version = entry.path.split("/")[-2].removesuffix(".dist-info").partition("-")
    return f"{name} {version}"


def _tags(file: str) -> list[str]:
    """Every tag of a wheel, as ``cp311-cp311-manylinux_2_17_x86_64``."""
    with open(file, encoding="utf-8", errors="replace") as source:
        lines = email.parser.HeaderParser().parse(source).get_all("Tag", [])
    return [tag for line in lines for tag in _each(line.strip())]


def _each(tag: str) -> Iterator[str]:
    """The tags of a set such as ``py2.py3-none-any``."""
    parts = [part.split(".") for part in tag.split("-")]
    if len(parts) == 3:
        yield from (f"{python}-{abi}-{platform}" for python in parts[0] for abi in parts[1] for platform in parts[2])


def _runs(tag: str, python: tuple[int, ...], platform: str) -> bool:
    interpreter, abi, built_for = tag.split("-")
    return _takes_python(interpreter, abi, python) and (built_for == "any" or _family(built_for, platform))


def _takes_python(interpreter: str, abi: str, python: tuple[int, ...]) -> bool:
    found = _INTERPRETER.fullmatch(interpreter)
    if found is None or int(found[2]) != python[0]:
        return False
    minor = int(found[3] or 0)
    if found[1] == "py" or abi == "abi3":
        return minor <= python[1] and found[1] != "pp"
    return found[1] == "cp" and minor == python[1] and abi in ("none", f"cp{python[0]}{python[1]}")


def _family(built_for: str, platform: str) -> bool:
    """Whether a wheel's platform is the workers': system and machine; versions of glibc and macOS are not compared."""
    system, _, machine = platform.lower().replace("-", "_", 1).partition("_")
    machine = _MACHINES.get(machine, machine)
    if system in ("linux", "musllinux"):
        prefixes: tuple[str, ...] = ("musllinux_", "linux_") if system == "musllinux" else ("manylinux", "linux_")
    else:
        prefixes = ("macosx_",) if system == "darwin" else ("win",)
    return built_for.startswith(prefixes) and _is_machine(built_for, machine)


def _is_machine(built_for: str, machine: str) -> bool:
    if built_for == "win32":
        return machine == "x86"
    if built_for.endswith("_universal2"):
        return machine in ("arm64", "x86_64")
    known = (*_MACHINES, *_MACHINES.values())
    ending = next((name for name in sorted(known, key=len, reverse=True) if built_for.endswith(f"_{name}")), None)
    return (_MACHINES.get(ending, ending) == machine) if ending else built_for.endswith(f"_{machine}")


def _breaks(entry: Entry, python: tuple[int, ...], platform: str) -> bool:
    """Whether a file is an extension module that says by its name that it is of another Python or platform."""
    found = _EXTENSION.search(entry.path)
    if entry.kind != FILE or found is None:
        return False
    if (int(found[1]), int(found[2])) != python:
        return True
    tag = found[3]
    system, _, machine = platform.lower().replace("-", "_", 1).partition("_")
    names = {"darwin": "darwin", "win32": "win", "linux": "linux-gnu", "musllinux": "linux-musl"}
    if names.get(system, system) not in tag:
        return True
    built_on = tag.replace("-", "_")
    return system != "darwin" and not any(name in built_on for name in (machine, *_same(machine)))


def _same(machine: str) -> list[str]:
    plain = _MACHINES.get(machine, machine)
    return [plain, *(name for name, other in _MACHINES.items() if other == plain)]


def _owned(listing: Listing, wheels: Iterable[Entry]) -> Iterator[str]:
    """The files that wheels installed, which are judged by their tags."""
    for entry in wheels:
        folder, _, _ = entry.path.rpartition("/")
        place, _, _ = folder.rpartition("/")
        try:
            with open(f"{listing.root}/{folder}/RECORD", encoding="utf-8", errors="replace") as source:
                yield from (f"{place}/{line}".lstrip("/").split(",")[0].strip('"') for line in source)
        except OSError:
            continue
