"""What code imports and names: the body of a function by its bytecode, which it has without its source; a module by its source."""

from __future__ import annotations

import ast
import dis
import types
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Statements:
    """What a piece of code says.

    Attributes:
        required: modules that it imports, as dotted names; names that it imports from a module are among them.
        optional: those that it imports within a ``try`` or ``with``, or under a condition at the top of a module.
        variables: names of the environment's variables that it reads.
        global_names: global names that it uses.
        attributes: names of attributes that it uses.
    """

    required: set[str] = field(default_factory=set)
    optional: set[str] = field(default_factory=set)
    variables: set[str] = field(default_factory=set)
    global_names: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)


def of_code(code: types.CodeType, package: str = "") -> Statements:
    """What the body of a function says, with the functions inside of it.

    Args:
        package: the one that relative imports start from.
    """
    found = Statements()
    for each in _with_inner(code):
        _read(each, package, found)
    return found


def of_module(source: str, package: str = "") -> Statements:
    """What a module imports when it is imported itself. What is under ``if TYPE_CHECKING`` is not."""
    found = Statements()
    _visit(ast.parse(source).body, package, found, found.required)
    return found


def _with_inner(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _with_inner(constant)


def _read(code: types.CodeType, package: str, found: Statements) -> None:
    guarded = _guarded(code)
    # Without what only the interpreter needs.
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("PRECALL", "PUSH_NULL", "CACHE", "EXTENDED_ARG")]
    for number, step in enumerate(steps):
        if step.opname == "IMPORT_NAME":
            # Pushed before it: how many packages up, and the names that are wanted of the module.
            level, names = steps[number - 2].argval, steps[number - 1].argval
            modules = found.optional if any(step.offset in each for each in guarded) else found.required
            modules.update(_modules(step.argval, level, names or (), package))
        elif step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            found.global_names.add(step.argval)
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            found.attributes.add(step.argval)
        if step.argval in ("environ", "getenv") and step.opname.startswith("LOAD_"):
            found.variables.update(_constant(steps[number + 1 : number + 3]))


def _guarded(code: types.CodeType) -> list[range]:
    """Where an exception is caught, in offsets of the bytecode."""
    starts = {step.offset: step for step in dis.get_instructions(code)}
    entries = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]
    # A generator's whole body has one, which turns StopIteration into an error.
    return [range(each.start, each.end) for each in entries if starts[each.target].opname != "CALL_INTRINSIC_1"]


def _constant(steps: list[dis.Instruction]) -> Iterator[str]:
    """The text in ``environ["A"]``, ``environ.get("A")`` and ``getenv("A")``."""
    texts = (step.argval for step in steps if step.opname == "LOAD_CONST" and isinstance(step.argval, str))
    yield from list(texts)[:1]


def _modules(name: str, level: int, names: tuple[str, ...], package: str) -> Iterator[str]:
    """A module that is imported, and what is imported from it, which may be modules too."""
    if level:
        base = package.split(".")
        above = base[: len(base) - level + 1]
        if not package or not above:
            return
        name = ".".join([*above, *([name] if name else [])])
    yield name
    yield from (f"{name}.{each}" for each in names if each != "*")


def _visit(body: list[ast.stmt], package: str, found: Statements, modules: set[str]) -> None:
    for node in body:
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            modules.update(_modules(node.module or "", node.level, tuple(alias.name for alias in node.names), package))
        elif isinstance(node, ast.ClassDef):
            _visit(node.body, package, found, modules)
        elif isinstance(node, ast.If):
            if not _is_for_types(node.test):
                _visit(node.body, package, found, found.optional)
            _visit(node.orelse, package, found, modules if _is_for_types(node.test) else found.optional)
        elif isinstance(node, ast.Try | ast.TryStar):
            handlers = [line for handler in node.handlers for line in handler.body]
            _visit([*node.body, *handlers, *node.orelse], package, found, found.optional if node.handlers else modules)
            _visit(node.finalbody, package, found, modules)
        elif isinstance(node, ast.With | ast.For | ast.While):
            _visit(node.body, package, found, found.optional)


def _is_for_types(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))
