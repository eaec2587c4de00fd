"""What a function needs, found from its code."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import typing
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import pytest

from runner import udf
from runner.manifests.imports import Needs, imports_of, needs_of
from tests.unit.conftest import LoadModule


def needs(load: LoadModule, source: str, name: str = "f") -> Needs:
    return needs_of(getattr(load(source, "my_module"), name))


@pytest.mark.parametrize(
    ("source", "imports", "optional"),
    [
        ("def f(x): return x + 1", set(), set()),
        ("import os, json\ndef f(x): return os.path.join(json.dumps(x))", set(), set()),
        ("import yaml\ndef f(x): return yaml.safe_load(x)", {"yaml"}, set()),
        ("from packaging.version import Version\ndef f(x): return Version(x)", {"packaging"}, set()),
        ("from packaging.version import parse\ndef f(x): return parse(x)", {"packaging"}, set()),
        ("def f(x):\n    import no_such.inner as a\n    return a", {"no_such"}, set()),
        ("def f(x):\n    from no_such.inner import a\n    return a", {"no_such"}, set()),
        ("def f(x):\n    try:\n        import fast\n    except ImportError:\n        import slow\n", set(), {"fast", "slow"}),
        ("import contextlib\ndef f(x):\n    with contextlib.suppress(ImportError):\n        import fast\n", set(), {"fast"}),
        ("def f(x):\n    import fast\n    try:\n        import fast\n    except ImportError: pass", {"fast"}, set()),
        ("def f(x):\n    import first\n    yield x\n    import second", {"first", "second"}, set()),
        ("def f(x):\n    def inner():\n        import deep\n        return deep\n    return inner", {"deep"}, set()),
        ("def f(x): return [__import__, (lambda: x)()]", set(), set()),
        ("def helper():\n    import deep\ndef f(x): return helper()", {"deep"}, set()),
        ("class Base:\n    def go(self):\n        import deep\nclass A(Base): pass\ndef f(x): return A().go()", {"deep"}, set()),
        ("class A:\n    @property\n    def p(self):\n        import deep\ndef f(x): return A().p", {"deep"}, set()),
        ("class A:\n    @staticmethod\n    def p():\n        import deep\ndef f(x): return A.p()", {"deep"}, set()),
        ("import functools\ndef g(a, b):\n    import deep\nh = functools.partial(g, 1)\ndef f(x): return h(x)", {"deep"}, set()),
        ("def g():\n    import deep\nTABLE = {'a': [g]}\ndef f(x): return TABLE['a'][0]()", {"deep"}, set()),
        ("def f(x, g=lambda: __import__('os')): return g", set(), set()),
        ("import yaml\nVALUE = yaml.SafeLoader('')\ndef f(x): return VALUE", {"yaml"}, set()),
        ("def a():\n    def b():\n        import deep\n    return b\ng = a()\ndef f(x): return g()", {"deep"}, set()),
    ],
)
def test_imports_of_a_function_and_its_helpers(load_module: LoadModule, source: str, imports: set[str], optional: set[str]) -> None:
    found = needs(load_module, source)
    assert found.imports - {"my_module"} == imports
    assert found.optional == optional


def test_a_function_by_value_needs_what_it_uses_and_no_more(load_module: LoadModule) -> None:
    module = load_module("import yaml, packaging.version\ndef f(x): return yaml.safe_load(x)\n", "my_module")
    assert imports_of(module.f) == {"my_module", "yaml", "packaging"}  # importing the module takes both
    module.f.__module__ = "__main__"
    assert imports_of(module.f) == {"yaml"}


def test_what_a_module_imports_when_it_is_imported(load_module: LoadModule) -> None:
    source = """
        from typing import TYPE_CHECKING
        import first
        if TYPE_CHECKING:
            import only_for_types
        else:
            import otherwise
        try:
            import fast
        except ImportError:
            fast = None
        if first.flag:
            import conditional
        class A:
            import in_class
        def other():
            import elsewhere
        def f(x): return 1
    """
    for name in ("first", "otherwise", "in_class"):
        load_module("flag = False", name)
    found = needs(load_module, textwrap.dedent(source))
    assert found.imports == {"my_module", "first", "otherwise", "in_class"}
    assert found.optional == {"fast", "conditional"}


def test_modules_of_the_user_s_own_are_followed_as_far_as_they_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "own_package"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("import yaml\n")
    (package / "inner/__init__.py").write_text("from . import low\n")
    (package / "inner/low.py").write_text(
        "import packaging\ndef used():\n    import deep\ndef unused():\n    import not_needed\nfrom ..side import word\n"
    )
    (package / "side.py").write_text("import psutil\nword = 1\n")
    (package / "api.py").write_text("from own_package.inner import low\ndef f(x):\n    return low.used()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import own_package.api  # type: ignore[import-not-found]

    assert imports_of(own_package.api.f) == {"own_package", "yaml", "packaging", "deep", "psutil"}


def unpickled(source: str, tmp_path: Path) -> Any:
    """A function that another process pickled by value."""
    file = tmp_path / "f.pkl"
    program = f"{textwrap.dedent(source)}\nimport cloudpickle, sys\nopen(sys.argv[1], 'wb').write(cloudpickle.dumps(f))\n"
    subprocess.run([sys.executable, "-c", program, str(file)], check=True)
    return cloudpickle.loads(file.read_bytes())


def test_a_function_without_source(tmp_path: Path) -> None:
    source = """
        import yaml, os
        from packaging.version import Version
        LIMIT = 3
        class Helper:
            def go(self):
                import deep
                return os.environ["HELPER_VARIABLE"]
        def f(x):
            try:
                import fast
            except ImportError:
                pass
            return Helper().go(), yaml.safe_load(x), Version("1"), LIMIT
    """
    found = needs_of(unpickled(source, tmp_path))
    assert found == Needs(frozenset({"yaml", "packaging", "deep"}), frozenset({"fast"}), frozenset({"HELPER_VARIABLE"}))


def test_variables_that_are_read(load_module: LoadModule) -> None:
    source = """
        import os
        from os import environ, getenv
        def f(x):
            known = os.environ["A"], os.environ.get("B", "not this"), os.getenv("C"), environ["D"], getenv("E", "nor this")
            return known, "F", x["G"]
    """
    assert needs(load_module, source).variables == {"A", "B", "C", "D", "E"}


def wrapping(function: Callable[..., Any]) -> Callable[..., Any]:
    import functools

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        import of_the_wrapper  # type: ignore[import-not-found]  # noqa: F401

        return function(*args)

    return wrapper


@wrapping
def wrapped(x: int) -> int:
    import of_the_wrapped  # type: ignore[import-not-found]  # noqa: F401

    return x


def test_both_sides_of_a_decorator_count() -> None:
    assert {"of_the_wrapper", "of_the_wrapped"} <= imports_of(wrapped)


class Model:
    def __init__(self, name: str, loader: Any) -> None:
        self.loader = loader

    def __call__(self, x: int) -> int:
        return os.getpid() + x


def loading() -> None:
    import of_the_argument  # type: ignore[import-not-found]  # noqa: F401


def test_a_udf_needs_what_its_arguments_do() -> None:
    embed = udf(Model)("clip", loading)
    assert "of_the_argument" in imports_of(embed)
    assert "of_the_argument" not in imports_of(udf(Model))


def test_a_module_without_source_counts_by_its_names(load_module: LoadModule) -> None:
    module: ModuleType = load_module("import yaml\ndef f(x): return 1\n", "my_module")
    module.__spec__ = None
    assert imports_of(module.f) == {"my_module", "yaml"}


def test_something_that_holds_itself_ends(load_module: LoadModule) -> None:
    module = load_module("import yaml\nTABLE = {}\nTABLE['me'] = TABLE\ndef f(x): return f(TABLE), g(x)\ndef g(x): return f(x)\n")
    assert imports_of(module.f) == {"user_module", "yaml"}


class Pair(typing.NamedTuple):
    first: int
    second: str


def test_a_named_tuple_is_made_in_memory_and_no_package() -> None:
    def pair(x: int) -> Pair:
        return Pair(x, "a")

    assert "tests" in imports_of(pair)
    assert not any(name.startswith("namedtuple") for name in imports_of(pair))
