"""What a function needs to run elsewhere, found from its code: the modules that it and its helpers import, the variables they read.

It works on a function that was unpickled by value, which has no source, as well.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from runner.environments.workspace import OURS
from runner.fingerprint import is_library
from runner.manifests.import_statements import Statements, of_code, of_module

_MOST_ITEMS = 1000
"""Of a long collection, so many are looked at."""


@dataclass(frozen=True)
class Needs:
    """What a function needs.

    Attributes:
        imports: top-level modules, those of the standard library and ours left out.
        optional: those that it imports within a ``try`` or ``with`` or under a condition, and does not need otherwise.
        variables: names of the environment's variables that it reads.
    """

    imports: frozenset[str]
    optional: frozenset[str]
    variables: frozenset[str]


def imports_of(function: Any) -> set[str]:
    """Top-level modules that a function needs; see `Needs`."""
    return set(needs_of(function).imports)


def needs_of(*functions: Any) -> Needs:
    """What functions, classes or UDFs need together."""
    walk = _Walk()
    for function in functions:
        walk.value(function)
    required, optional = _tops(walk.required), _tops(walk.optional)
    return Needs(required, optional - required, frozenset(walk.variables))


def _tops(modules: Iterable[str]) -> frozenset[str]:
    tops = {module.partition(".")[0] for module in modules}
    return frozenset(tops - sys.stdlib_module_names - set(sys.builtin_module_names) - {*OURS, "__main__", ""})


class _Walk:
    """Through a function's code to everything that it uses."""

    def __init__(self) -> None:
        self.required: set[str] = set()
        self.optional: set[str] = set()
        self.variables: set[str] = set()
        self._seen: set[int] = set()
        self._keep: list[Any] = []  # ids in _seen stay unique only while their objects live
        self._modules: set[str] = set()

    def value(self, value: Any) -> None:
        if value is None or isinstance(value, bool | int | float | complex | str | bytes) or id(value) in self._seen:
            return
        self._seen.add(id(value))
        self._keep.append(value)
        if isinstance(value, types.ModuleType):
            self._module(value.__name__)
        elif isinstance(value, list | tuple | set | frozenset):
            self._all(value)
        elif isinstance(value, dict):
            self._all(value.values())
        elif isinstance(value, functools.partial):
            self._all([value.func, value.args, value.keywords])
        elif isinstance(value, types.MethodType):
            self._all([value.__func__, value.__self__])
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif inspect.isclass(value):
            self._class(value)
        else:
            self._object(value)

    def _all(self, values: Iterable[Any]) -> None:
        for value in itertools.islice(values, _MOST_ITEMS):
            self.value(value)

    def _function(self, function: types.FunctionType) -> None:
        self.value(getattr(function, "__wrapped__", None))
        if is_library(function.__module__ or "builtins"):
            self._module(function.__module__)
            return
        if _is_importable(function):
            self._module(function.__module__)
        self._code(function.__code__, function.__globals__)
        cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        self._all([function.__defaults__, function.__kwdefaults__, *cells])

    def _class(self, kind: type) -> None:
        if is_library(kind.__module__):
            self._module(kind.__module__)
            return
        if _is_importable(kind):
            self._module(kind.__module__)
        self._all(kind.__mro__[1:])
        for member in vars(kind).values():
            self._member(member)

    def _member(self, member: Any) -> None:
        if isinstance(member, staticmethod | classmethod):
            member = member.__func__
        if isinstance(member, property):
            self._all([member.fget, member.fset])
        elif not isinstance(member, types.GetSetDescriptorType | types.MemberDescriptorType):
            self.value(member)

    def _object(self, value: Any) -> None:
        from runner.functions import UDF

        if isinstance(value, UDF):
            self._all([value.func, value.init])
            return
        module = getattr(value, "__module__", None)
        if callable(value) and isinstance(module, str):  # a function of C
            self._module(module)
        self.value(type(value))
        if not is_library(type(value).__module__):
            self.value(getattr(value, "__dict__", None))

    def _code(self, code: types.CodeType, names: dict[str, Any]) -> None:
        says = of_code(code, str(names.get("__package__") or ""))
        self._take(says)
        for name in says.global_names & names.keys():
            self.value(names[name])
            if isinstance(names[name], types.ModuleType):
                self._attributes(names[name], says.attributes)
        for module in says.required | says.optional:
            if module in sys.modules:
                self._attributes(sys.modules[module], says.attributes)

    def _attributes(self, module: types.ModuleType, names: set[str]) -> None:
        """What is used of a module of the user's own."""
        if not is_library(module.__name__):
            self._all([vars(module)[name] for name in sorted(names & vars(module).keys())])

    def _take(self, says: Statements) -> None:
        self.variables |= says.variables
        self.optional |= says.optional
        for module in says.required:
            self._module(module)

    def _module(self, name: str) -> None:
        """A module that is imported; of the user's own what it imports itself, and the packages that it is in do."""
        self.required.add(name)
        for end in range(1, name.count(".") + 2):
            part = ".".join(name.split(".")[:end])
            if part in self._modules or part == "__main__" or part not in sys.modules or is_library(part):
                continue
            self._modules.add(part)
            self._take(_of_own_module(sys.modules[part]))


def _of_own_module(module: types.ModuleType) -> Statements:
    loader = getattr(module.__spec__, "loader", None)
    try:
        source = loader.get_source(module.__name__) if loader else None
        if source is not None:
            return of_module(source, str(module.__package__ or ""))
    except (ImportError, AttributeError, SyntaxError, OSError):
        pass
    # No source: what its names are bound to.
    return Statements(required={value.__name__ for value in vars(module).values() if isinstance(value, types.ModuleType)})


def _is_importable(value: Any) -> bool:
    """Whether a worker imports it; else it goes by value, and its module does not have to."""
    found: Any = sys.modules.get(value.__module__) if value.__module__ != "__main__" else None
    for part in value.__qualname__.split(".") if found is not None else ():
        found = getattr(found, part, None)
    return found is not None


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # of a name that is not bound yet
        return False
