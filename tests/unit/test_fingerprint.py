from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from runner.fingerprint import fingerprint
from tests.unit.conftest import LoadModule

BASE = """
import re, functools, datetime, decimal, logging
from dataclasses import dataclass

log = logging.getLogger("user")
LIMIT = 3
START = 1
PATTERN = re.compile("a+")
DAY = datetime.date(2024, 1, 1)
RATE = decimal.Decimal("0.5")
power = functools.partial(pow, 2)
NAMES = {"a": 1, "b": [1, 2]}
WORDS = {"x", "y", "z"}

@dataclass(frozen=True, slots=True)
class Config:
    size: int = 1

CONFIG = Config(1)

def deep(x, start=START):
    return x + 1

def helper(x):
    return deep(x)

class Parent:
    def base(self):
        return 10

class Child(Parent):
    def __call__(self, x: int) -> int:
        return self.base() + helper(x)

def f(x: int) -> int:
    log.info("called")
    return helper(x) + LIMIT + len(PATTERN.findall("aa")) + DAY.year + int(RATE) + power(2) + len(NAMES) + len(WORDS) + CONFIG.size
"""


def version(load: LoadModule, source: str, name: str = "f") -> str:
    return fingerprint(getattr(load(source), name))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    return x + 1\n", "    return x + 2\n"),
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("LIMIT = 3", "LIMIT = '3'"),
        ('"a+"', '"b+"'),
        ("date(2024, 1, 1)", "date(2024, 1, 2)"),
        ('Decimal("0.5")', 'Decimal("0.6")'),
        ("partial(pow, 2)", "partial(pow, 3)"),
        ("partial(pow, 2)", "partial(max, 2)"),
        ('"b": [1, 2]', '"b": [2, 1]'),
        ('"z"}', '"zz"}'),
        ("CONFIG = Config(1)", "CONFIG = Config(2)"),
        ("def f(x: int)", "def f(x: int, y: int = 2)"),
        ("START = 1", "START = 2"),
        ('getLogger("user")', 'getLogger("other")'),
    ],
)
def test_a_change_of_what_the_function_uses_changes_its_version(load_module: LoadModule, old: str, new: str) -> None:
    assert old in BASE
    assert version(load_module, BASE.replace(old, new)) != version(load_module, BASE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def deep(x, start=START):\n", 'def deep(x, start=START):\n    """Says what it does."""\n\n    # and how\n'),
        ("    return helper(x) +", "    return   helper( x ) +"),
        ("def f(", "def unused() -> None: ...\n\n\n@functools.lru_cache\ndef f("),
        ('{"a": 1, "b": [1, 2]}', '{"b": [1, 2], "a": 1}'),
        ('{"x", "y", "z"}', '{"z", "y", "x"}'),
    ],
)
def test_a_change_that_computes_the_same_keeps_the_version(load_module: LoadModule, old: str, new: str) -> None:
    assert old in BASE
    assert version(load_module, BASE.replace(old, new)) == version(load_module, BASE)


@pytest.mark.parametrize(("old", "new"), [("return 10", "return 11"), ("    return x + 1", "    return x - 1")])
def test_a_class_changes_with_its_base_class_and_with_what_its_methods_call(load_module: LoadModule, old: str, new: str) -> None:
    assert version(load_module, BASE.replace(old, new), "Child") != version(load_module, BASE, "Child")


def test_closed_over_values_count() -> None:
    def make(factor: Any) -> Callable[[int], Any]:
        return lambda x: x * factor

    assert fingerprint(make(2)) == fingerprint(make(2))
    assert fingerprint(make(2)) != fingerprint(make(3))
    assert fingerprint(make(2)) != fingerprint(make(True))


def test_two_lambdas_on_one_line_differ() -> None:
    first, second = (lambda x: x + 1), (lambda x: x + 2)
    assert fingerprint(first) != fingerprint(second)


def test_functions_of_own_modules_count_through_modules_of_modules(load_module: LoadModule) -> None:
    def load(step: int) -> str:
        inner = load_module(f"def g(x):\n    return x + {step}\n", "user_package.inner")
        package = load_module("", "user_package")
        package.inner = inner  # type: ignore[attr-defined]
        return version(load_module, "import user_package\ndef f(x: int) -> int:\n    return user_package.inner.g(x)\n")

    assert load(1) == load(1)
    assert load(1) != load(2)


def test_unused_names_of_own_modules_do_not_count(load_module: LoadModule) -> None:
    def load(other: int) -> str:
        load_module(f"def g(x):\n    return x\n\ndef other():\n    return {other}\n", "user_helpers")
        return version(load_module, "import user_helpers\ndef f(x: int) -> int:\n    return user_helpers.g(x)\n")

    assert load(1) == load(2)


def test_a_registry_that_holds_the_functions_that_use_it_ends_and_counts(load_module: LoadModule) -> None:
    source = """
    def one(x):
        return HANDLERS["two"](x)

    def two(x):
        return HANDLERS and x

    HANDLERS = {"one": one, "two": two}

    def f(x: int) -> int:
        return HANDLERS["one"](x)
    """
    assert version(load_module, source) == version(load_module, source)
    assert version(load_module, source) != version(load_module, source.replace("HANDLERS and x", "x"))


def test_objects_that_hold_each_other_end(load_module: LoadModule) -> None:
    source = """
    class Node:
        def __init__(self, value):
            self.value = value

    A, B = Node(1), Node(2)
    A.other, B.other = B, A

    def f(x: int) -> int:
        return A.other.value + x
    """
    assert version(load_module, source) == version(load_module, source)
    assert version(load_module, source) != version(load_module, source.replace("Node(2)", "Node(3)"))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (np.arange(5), np.arange(5) + 1),
        (np.arange(6), np.arange(6).reshape(2, 3)),
        (np.zeros(2, np.float32), np.zeros(2, np.int32)),
        (np.array(["a", "b"], object), np.array(["a", "c"], object)),
        (pa.array(range(100)), pa.array([*range(50), 0, *range(51, 100)])),
        (pa.array([1], pa.int8()), pa.array([1], pa.int16())),
        (pa.int8(), pa.int16()),
        ([1, 2], (1, 2)),
        ([[1], 2], [1, [2]]),
        ("1", b"1"),
        (1, True),
        ({"a": 1}, {"a": 2}),
        ({1}, frozenset({2})),
    ],
)
def test_different_values_differ(left: Any, right: Any) -> None:
    assert fingerprint(left) != fingerprint(right)


@pytest.mark.parametrize(
    "make", [lambda: np.array(["a", "b"], object), lambda: {"b": {3, 2, 1}, "a": [None]}, lambda: pa.array([1.5])]
)
def test_equal_values_that_are_not_the_same_object_agree(make: Callable[[], Any]) -> None:
    assert fingerprint(make()) == fingerprint(make())


def test_another_process_with_another_hash_seed_finds_the_same(tmp_path: Path) -> None:
    (tmp_path / "user_seeded.py").write_text(BASE)
    command = [
        sys.executable,
        "-c",
        "import user_seeded, runner.fingerprint as r; print(r.fingerprint(user_seeded.f, user_seeded.Child))",
    ]
    found = set()
    for seed in ("1", "2"):
        path = f"{tmp_path}:{Path(__file__).parents[2]}"
        done = subprocess.run(command, env={"PYTHONPATH": path, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True)
        found.add(done.stdout.strip())
    assert len(found) == 1
    assert len(found.pop()) == 16


def test_installed_packages_count_by_name_only(load_module: LoadModule) -> None:
    function = load_module("import numpy as np\ndef f(x: int) -> float:\n    return float(np.sqrt(x))\n").f
    before = fingerprint(function)
    assert before == fingerprint(function)
    assert before != version(load_module, "import numpy as np\ndef f(x: int) -> float:\n    return float(np.cbrt(x))\n")


def test_what_a_method_closes_over_counts_and_so_do_its_defaults() -> None:
    def closing(factor: int) -> type:
        class Scaled:
            def __call__(self, x: int) -> int:
                return super().__hash__() * 0 + x * factor

        return Scaled

    def defaulting(factor: int) -> type:
        class Scaled:
            def __call__(self, x: int, by: int = factor) -> int:
                return x * by

        return Scaled

    for make in (closing, defaulting):
        assert fingerprint(make(2)) == fingerprint(make(2))
        assert fingerprint(make(2)) != fingerprint(make(3))
