"""What a Python finds around it, as JSON. Run on a cluster by its source, so it needs the standard library only."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import sys
import sysconfig
from importlib import metadata

MARK = "infill-facts "


def name_of(distribution: str) -> str:
    """The canonical spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def found(modules: list[str]) -> dict[str, object]:
    """Facts of this process; the fields of `runner.manifests.facts.Facts`."""
    versions, requires = installed()
    return {
        "python": platform.python_version(),
        "platform": f"{sys.platform}-{platform.machine().lower()}",
        "ray": versions.get("ray"),
        "distributions": versions,
        "requires": requires,
        "env": sorted(os.environ),
        "modules": {module: place for module in modules if (place := place_of(module)) is not None},
        "provided_by": providers(modules),
    }


def installed() -> tuple[dict[str, str], dict[str, list[str]]]:
    """Versions of the installed distributions, and the distributions that each needs without its extras."""
    versions: dict[str, str] = {}
    requires: dict[str, list[str]] = {}
    for each in metadata.distributions():
        name = name_of(each.metadata["Name"] or "")
        if not name or name in versions:  # the first on sys.path is the one that is imported
            continue
        versions[name] = each.version
        lines = [line for line in each.requires or [] if not re.search(r";.*\bextra\b", line)]
        needed = (re.match(r"[A-Za-z0-9][-A-Za-z0-9._]*", line.strip()) for line in lines)
        requires[name] = sorted({name_of(match[0]) for match in needed if match})
    return dict(sorted(versions.items())), {name: needs for name, needs in sorted(requires.items()) if needs}


def place_of(module: str) -> str | None:
    """Where a top-level module is imported from: ``stdlib``, ``site`` or a path elsewhere; None where there is none.

    It is looked for, not imported.
    """
    if module in sys.builtin_module_names or module in getattr(sys, "stdlib_module_names", ()):
        return "stdlib"
    try:
        spec = importlib.util.find_spec(module)
    except ValueError:  # one that was made by hand
        return None
    if spec is None:
        return None
    origin = os.path.abspath(spec.origin or next(iter(spec.submodule_search_locations or []), ""))
    site = {os.path.realpath(path) for key, path in sysconfig.get_paths().items() if key in ("purelib", "platlib")}
    site.update(path for path in map(os.path.realpath, sys.path) if os.path.basename(path) in ("site-packages", "dist-packages"))
    return "site" if any(os.path.realpath(origin).startswith(path + os.sep) for path in site) else origin


def providers(modules: list[str]) -> dict[str, list[str]]:
    """The distributions that each module comes from."""
    known = metadata.packages_distributions() if hasattr(metadata, "packages_distributions") else {}  # since Python 3.10
    return {module: sorted({name_of(each) for each in known[module]}) for module in modules if module in known}


if __name__ == "__main__":
    print(MARK + json.dumps(found(sys.argv[1:])), flush=True)
