"""py_modules: packages outside of site-packages, as folders and files of this machine, and as uploads."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import BadInput
from runner.packages.unpack import own_folder

if TYPE_CHECKING:
    from runner.packages.package import Package
    from runner.store import Store

_UPLOADED = re.compile(r"([^/@]+)@([0-9a-f]{64})")


def uploaded(module: str) -> tuple[str, str] | None:
    """``(name, package)`` of a module that was uploaded, None for a path of this machine."""
    found = _UPLOADED.fullmatch(module)
    return (found[1], found[2]) if found else None


def check_modules(modules: Sequence[str], what: str) -> None:
    """Refuse modules that are neither uploaded nor on this machine, or that are no modules.

    Raises:
        BadInput: with their paths; `what` says whose they are.
    """
    paths = [Path(module) for module in modules if not uploaded(module)]
    missing = [str(path.absolute()) for path in paths if not path.exists()]
    if missing:
        raise BadInput(f"{what}: py_modules: there is no {', '.join(missing)} on this machine")
    for path in paths:
        if path.is_file() and path.suffix not in (".py", ".whl"):
            raise BadInput(f"{what}: py_modules: {path} is neither a folder nor a .py file nor a wheel")
        if path.suffix == ".whl" and not zipfile.is_zipfile(path):
            raise BadInput(f"{what}: py_modules: {path} is no wheel: it is no zip file")
        if path.name in ("runner", "infra", "runner.py", "infra.py"):
            raise BadInput(f"{what}: py_modules: {path} has the name of one of Infill's own packages; rename it")


def upload_modules(modules: Sequence[str], store: Store, put: Callable[..., str] | None = None, **zips: Any) -> list[str]:
    """The modules as ``name@package``, so that they mean the same on another machine. What is uploaded already stays.

    Args:
        put: what uploads a package; default: `runner.packages.upload.upload`.
        zips: as `runner.packages.upload.upload` takes them.
    """
    from runner.packages.upload import upload

    found = []
    for module in modules:
        if uploaded(module):
            found.append(module)
            continue
        with packaged(module) as package:
            found.append(f"{Path(module).name}@{(put or upload)(package, store, **zips)}")
    return found


@contextmanager
def packaged(module: str) -> Iterator[Package]:
    """The package of a module of this machine: a folder's content; of a file or a wheel a folder that goes on the path."""
    from runner.packages.package import build

    path = Path(module).resolve()
    if path.is_dir():
        yield build(path)
        return
    with tempfile.TemporaryDirectory(prefix="infill-module-") as folder:
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                wheel.extractall(folder)
            yield build(Path(folder), site=True)
        else:
            shutil.copy(path, folder)
            yield build(Path(folder))


def is_package(name: str) -> bool:
    """Whether an upload of that name is the content of a package's folder; the others are folders for ``sys.path``."""
    return not name.endswith((".py", ".whl"))


def importable_from(module: str) -> Path:
    """A folder of this machine from which a module of this machine, and nothing beside it, is imported."""
    path = Path(module).resolve()
    if path.suffix != ".whl" or path.is_dir():
        return linked(path.name, hashlib.sha256(os.fsencode(path)).hexdigest(), path)
    folder = own_folder() / "wheels" / hashlib.sha256(path.read_bytes()).hexdigest()
    if not folder.is_dir():
        half = folder.with_name(f"{folder.name}.{os.getpid()}")
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(half)
        with contextlib.suppress(OSError):  # another process was first
            half.rename(folder)
        shutil.rmtree(half, ignore_errors=True)
    return folder


def linked(name: str, key: str, content: Path) -> Path:
    """A folder that holds something under a name; `key` is unique to it."""
    folder = own_folder() / "modules" / key
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (folder / name).symlink_to(content)
    return folder
