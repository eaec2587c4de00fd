"""Exceptions by name, so that a column's metadata can hold them: ``TimeoutError``, or ``httpx:TimeoutException``."""

from __future__ import annotations

import builtins
import importlib
import inspect
import re
import sys
from collections.abc import Sequence
from typing import Any, TypeGuard

from runner.errors import BadInput, RunnerError

_PATH = re.compile(r"[A-Za-z_][\w.]*[:.][A-Za-z_]\w*")


def exception_names(retry_on: Any) -> tuple[str, ...]:
    """One name for each exception: a builtin's own, ``module:name`` of any other.

    Args:
        retry_on: one of, or several of: exception classes and their names, ``"TimeoutError"`` or ``"httpx.TimeoutException"``.

    Raises:
        BadInput: not an exception, or a name that nothing has.
    """
    given = list(retry_on) if isinstance(retry_on, (tuple, list, set, frozenset)) else [retry_on]
    return tuple(dict.fromkeys(_name(value) for value in given))


def load_exceptions(names: Sequence[str]) -> tuple[type[BaseException], ...]:
    """The classes of those names, imported.

    Raises:
        RunnerError: one of them cannot be imported here.
    """
    return tuple(_load(name) for name in names)


def _name(value: Any) -> str:
    if _is_exception(value):
        if value.__module__ == builtins.__name__:
            return value.__name__
        if value.__module__ == "__main__" or "<" in value.__qualname__:
            raise BadInput(f"retry_on: {value.__qualname__} cannot be imported on a worker; define it in a module of its own")
        return f"{value.__module__}:{value.__qualname__}"
    if isinstance(value, str) and _is_exception(getattr(builtins, value, None)):
        return str(value)
    if isinstance(value, str) and _PATH.fullmatch(value):
        module, _, name = value.rpartition(":" if ":" in value else ".")
        if module not in sys.modules or _is_exception(getattr(sys.modules[module], name, None)):
            return f"{module}:{name}"
    raise BadInput(f"retry_on: {value!r} is not an exception; give the class, or its name such as 'httpx:TimeoutException'")


def _load(name: str) -> type[BaseException]:
    module, colon, qualname = name.partition(":")
    found: Any = builtins
    try:
        found = importlib.import_module(module) if colon else builtins
        for part in (qualname if colon else name).split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as exc:
        raise RunnerError(f"retry_on names {name}, which cannot be imported on a worker: {exc}") from exc
    if not _is_exception(found):
        raise RunnerError(f"retry_on names {name}, which is not an exception")
    return found


def _is_exception(value: Any) -> TypeGuard[type[BaseException]]:
    return inspect.isclass(value) and issubclass(value, BaseException)
