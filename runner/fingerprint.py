"""The version of a function: a hash of its source and of everything it closes over.

Comments, blank lines, docstrings and decorators do not count. Functions, classes and constants of the user's own modules
that the function uses do count, however deep. Installed packages count by name only, so that an upgrade of numpy does not
make every column stale.
"""

from __future__ import annotations

import ast
import copyreg
import hashlib
import inspect
import sys
import sysconfig
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LIBRARY_PATHS = tuple(
    str(Path(path).resolve()) for key, path in sysconfig.get_paths().items() if key in ("stdlib", "purelib", "platlib")
)
# Globals of every module that say where it lies on this machine.
_OF_THE_IMPORT = frozenset(("__builtins__", "__cached__", "__file__", "__loader__", "__path__", "__spec__"))


def fingerprint(*values: Any) -> str:
    """16 hexadecimal digits, the same in every process and on every machine for the same code and values."""
    return _Hasher().feed_all(values).hexdigest()


class _Hasher:
    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._seen: set[int] = set()
        self._keep: list[Any] = []  # ids in _seen stay unique only while their objects live

    def hexdigest(self) -> str:
        return self._hash.hexdigest()[:16]

    def feed_all(self, values: Any) -> _Hasher:
        for value in values:
            self.feed(value)
        return self

    def _text(self, *parts: str) -> None:
        for part in parts:
            self._hash.update(part.encode("utf-8", "surrogatepass") + b"\0")

    def feed(self, value: Any) -> None:
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            self._text(type(value).__name__, repr(value))
            return
        if id(value) in self._seen:
            self._text("seen", getattr(value, "__qualname__", type(value).__name__))
            return
        self._seen.add(id(value))
        self._keep.append(value)
        if isinstance(value, (list, tuple)):
            self._text(type(value).__name__, str(len(value)))
            self.feed_all(value)
        elif isinstance(value, (set, frozenset)):
            self._text("set", *sorted(self._apart(item) for item in value))
        elif isinstance(value, dict):
            self._text("dict", str(len(value)))
            for digest, key in sorted(((self._apart(key), key) for key in value), key=lambda pair: pair[0]):
                self._text(digest)
                self.feed(value[key])
        elif isinstance(value, types.ModuleType):
            self._text("module", value.__name__)
        elif isinstance(value, types.CodeType):
            self._feed_bytecode(value)
        elif callable(value) and hasattr(value, "__qualname__"):
            self._feed_callable(value)
        else:
            self._feed_object(value)

    def _apart(self, item: Any) -> str:
        """Digest of an item of an unordered collection: it depends on what holds the collection, not on its neighbours."""
        other = _Hasher()
        other._seen = set(self._seen)
        return other.feed_all([item]).hexdigest()

    def _feed_callable(self, value: Any) -> None:
        value = inspect.unwrap(value)
        module = getattr(value, "__module__", None) or "builtins"
        if isinstance(value, types.MethodType):
            self.feed(value.__func__)
            self.feed(value.__self__)
        elif not (isinstance(value, types.FunctionType) or inspect.isclass(value)) or is_library(module):
            self._text("named", module, value.__qualname__)
        elif isinstance(value, types.FunctionType):
            self._feed_source(value, value.__code__)
            self.feed_all([value.__defaults__, value.__kwdefaults__])
            self._feed_closure(value)
            self._feed_globals(value.__code__, value.__globals__)
        else:
            self._feed_class(value)

    def _feed_class(self, value: type) -> None:
        self._feed_source(value, None)
        self.feed_all(base for base in value.__bases__ if base is not object)
        for member in vars(value).values():
            function = inspect.unwrap(getattr(member, "__func__", member)) if callable(member) else None
            if isinstance(function, types.FunctionType):
                self.feed_all(given for given in (function.__defaults__, function.__kwdefaults__) if given)
                self._feed_closure(function)
                self._feed_globals(function.__code__, function.__globals__)

    def _feed_closure(self, function: types.FunctionType) -> None:
        for cell in function.__closure__ or ():
            self.feed(cell.cell_contents)

    def _feed_source(self, value: Any, code: types.CodeType | None) -> None:
        if code is not None and code.co_name == "<lambda>":  # its source is the whole line, which may hold several
            self._feed_bytecode(code)
            return
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
        except (OSError, TypeError, SyntaxError):  # no source (a REPL, python -c) or a lambda inside a longer line
            self._text("no source", value.__qualname__)
            if code is not None:
                self._feed_bytecode(code)
            return
        self._text("source", ast.unparse(_without_trimmings(tree)))

    def _feed_bytecode(self, code: types.CodeType) -> None:
        self._text("bytecode", sys.implementation.cache_tag or "", code.co_code.hex(), *code.co_names)
        self.feed_all(code.co_consts)

    def _feed_globals(self, code: types.CodeType, names: dict[str, Any]) -> None:
        for name in sorted(set(_names(code))):
            if name not in names or name in _OF_THE_IMPORT:
                continue
            value = names[name]
            self._text("global", name)
            self.feed(value)
            if isinstance(value, types.ModuleType):
                self._feed_attributes(value, sorted(set(_names(code))), set())

    def _feed_attributes(self, module: types.ModuleType, names: list[str], visited: set[str]) -> None:
        """What is used of a module of the user's own, and of the modules in it."""
        if is_library(module.__name__) or module.__name__ in visited:
            return
        visited.add(module.__name__)
        for used in (getattr(module, name) for name in names if hasattr(module, name)):
            self.feed(used)
            if isinstance(used, types.ModuleType):
                self._feed_attributes(used, names, visited)

    def _feed_object(self, value: Any) -> None:
        kind = type(value)
        self._text("object", kind.__module__, kind.__qualname__)
        if hasattr(value, "tobytes") and hasattr(value, "dtype"):
            self._text(str(value.dtype), str(value.shape))
            self.feed(value.tolist() if value.dtype.hasobject else value.tobytes())
        elif kind.__module__.partition(".")[0] == "pyarrow":
            self._text(str(getattr(value, "type", value)))
            self.feed(value.to_pylist() if hasattr(value, "to_pylist") else None)
        else:
            self.feed(kind)
            self.feed(_state(value))


def _state(value: Any) -> Any:
    """What an object holds: its attributes; of a standard type (a pattern, a date, a logger) what a pickle would hold."""
    kind = type(value)
    try:
        if kind.__module__.partition(".")[0] not in sys.stdlib_module_names:
            return value.__getstate__()
        if kind.__module__ == "random":  # seeded anew in each process
            return None
        reduced = copyreg.dispatch_table[kind](value) if kind in copyreg.dispatch_table else value.__reduce_ex__(4)
        return [list(part) if isinstance(part, Iterator) else part for part in reduced]
    except Exception:  # what cannot be pickled, a lock for example, has no state that a function's result depends on
        return getattr(value, "__dict__", None)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _without_trimmings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            node.decorator_list = []
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
                node.body = node.body[1:] or [ast.Pass()]
    return tree


def is_library(module: str) -> bool:
    """Whether a module is of the standard library, an installed package or ours: no code of the user's own."""
    root = module.partition(".")[0]
    if root == "__main__":  # wherever the program lies that runs it: a notebook's kernel, pytest
        return False
    if root == __name__.partition(".")[0] or root in sys.builtin_module_names or root in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(module) or sys.modules.get(root), "__file__", None)
    return bool(file) and str(Path(str(file)).resolve()).startswith(_LIBRARY_PATHS)
