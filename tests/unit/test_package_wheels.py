from __future__ import annotations

from pathlib import Path

import pytest

from runner.errors import BadInput
from runner.packages.package import this_platform, this_python
from runner.packages.roots import site_packages
from runner.packages.scan import Listing, scan
from runner.packages.wheels import check_platform, foreign
from tests.unit.package_trees import write


def wheel(root: Path, name: str, *tags: str, files: tuple[str, ...] = ()) -> None:
    head = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\n"
    info = f"{name}-1.0.dist-info"
    write(root, {f"{info}/WHEEL": head + "".join(f"Tag: {tag}\n" for tag in tags), f"{name}/__init__.py": ""})
    write(root, {f"{info}/RECORD": "".join(f"{file},sha256=x,1\n" for file in files), **dict.fromkeys(files, "")})


def listed(root: Path) -> Listing:
    return scan(root, site=True)


LINUX = "linux-x86_64"


@pytest.mark.parametrize(
    ("tags", "python", "platform", "runs"),
    [
        (["py3-none-any"], "3.12", "darwin-arm64", True),
        (["py2-none-any", "py3-none-any"], "3.11", LINUX, True),
        (["py2.py3-none-any"], "3.11", LINUX, True),
        (["py2-none-any"], "3.11", LINUX, False),
        (["py312-none-any"], "3.11", LINUX, False),
        (["py310-none-any"], "3.11", LINUX, True),
        (["cp311-cp311-manylinux_2_17_x86_64", "cp311-cp311-manylinux2014_x86_64"], "3.11", LINUX, True),
        (["cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64"], "3.11", LINUX, True),
        (["cp311-cp311-manylinux_2_17_x86_64"], "3.12", LINUX, False),
        (["cp311-cp311-manylinux_2_17_x86_64"], "3.10", LINUX, False),
        (["cp311-cp311-manylinux_2_17_x86_64"], "3.11", "linux-aarch64", False),
        (["cp311-cp311-manylinux_2_17_aarch64"], "3.11", "linux-aarch64", True),
        (["cp311-cp311-manylinux_2_17_aarch64"], "3.11", "linux-arm64", True),
        (["cp311-cp311-manylinux_2_17_x86_64"], "3.11", "darwin-x86_64", False),
        (["cp311-cp311-linux_x86_64"], "3.11", LINUX, True),
        (["cp311-cp311-manylinux_2_17_i686"], "3.11", LINUX, False),
        (["cp311-cp311-musllinux_1_2_x86_64"], "3.11", LINUX, False),
        (["cp311-cp311-musllinux_1_2_x86_64"], "3.11", "musllinux-x86_64", True),
        (["cp311-cp311-manylinux_2_17_x86_64"], "3.11", "musllinux-x86_64", False),
        (["cp39-abi3-manylinux_2_28_x86_64"], "3.12", LINUX, True),
        (["cp312-abi3-manylinux_2_28_x86_64"], "3.11", LINUX, False),
        (["cp39-abi3-macosx_11_0_arm64"], "3.12", LINUX, False),
        (["cp311-cp311-macosx_11_0_arm64"], "3.11", "darwin-arm64", True),
        (["cp311-cp311-macosx_10_9_universal2"], "3.11", "darwin-arm64", True),
        (["cp311-cp311-macosx_10_9_x86_64"], "3.11", "darwin-arm64", False),
        (["cp311-cp311-win_amd64"], "3.11", LINUX, False),
        (["cp311-cp311-win_amd64"], "3.11", "win32-amd64", True),
        (["cp313-cp313t-manylinux_2_17_x86_64"], "3.13", LINUX, False),
        (["cp311-none-manylinux_2_17_x86_64"], "3.11", LINUX, True),
        (["pp311-pypy311_pp73-manylinux_2_17_x86_64"], "3.11", LINUX, False),
        (["py3-none-manylinux_2_17_x86_64"], "3.13", LINUX, True),
        (["py3-none-manylinux_2_17_x86_64"], "3.13", "linux-aarch64", False),
    ],
)
def test_tags(tmp_path: Path, tags: list[str], python: str, platform: str, runs: bool) -> None:
    wheel(tmp_path, "some", *tags)
    assert bool(foreign(listed(tmp_path), python, platform)) is not runs


def test_the_packages_that_would_break_are_named_with_their_tags(tmp_path: Path) -> None:
    wheel(tmp_path, "pure", "py3-none-any")
    wheel(tmp_path, "numpy", "cp311-cp311-manylinux_2_17_x86_64", "cp311-cp311-manylinux2014_x86_64")
    wheel(tmp_path, "orjson", "cp311-cp311-manylinux_2_17_x86_64")
    check_platform(listed(tmp_path), "3.11", LINUX)
    with pytest.raises(BadInput) as refused:
        check_platform(listed(tmp_path), "3.12", LINUX)
    assert str(refused.value).splitlines()[:3] == [
        f"{tmp_path}: 2 packages are not built for the workers' Python 3.12 on linux-x86_64:",
        "  numpy 1.0: built for cp311-cp311-manylinux_2_17_x86_64, cp311-cp311-manylinux2014_x86_64",
        "  orjson 1.0: built for cp311-cp311-manylinux_2_17_x86_64",
    ]


def test_extension_modules_of_no_wheel_are_named(tmp_path: Path) -> None:
    owned = "numpy/core.cpython-311-x86_64-linux-gnu.so"
    wheel(tmp_path, "numpy", "cp311-cp311-manylinux_2_17_x86_64", files=(owned,))
    write(tmp_path, {"mine/fast.cpython-311-x86_64-linux-gnu.so": "", "mine/any.abi3.so": "", "mine/libx.so": ""})
    assert foreign(listed(tmp_path), "3.11", LINUX) == []
    assert [name for name, _ in foreign(listed(tmp_path), "3.12", LINUX)] == [
        "mine/fast.cpython-311-x86_64-linux-gnu.so",
        "numpy 1.0",
    ]
    for platform in ("darwin-arm64", "linux-aarch64", "musllinux-x86_64", "win32-amd64"):
        assert len(foreign(listed(tmp_path), "3.11", platform)) == 2, platform


def test_what_is_installed_here_runs_here() -> None:
    for folder in site_packages():
        assert foreign(listed(folder), this_python(), this_platform()) == []


def test_what_is_installed_here_does_not_run_on_another_python() -> None:
    found = {name.split()[0] for folder in site_packages() for name, _ in foreign(listed(folder), "3.99", this_platform())}
    assert {"numpy", "pyarrow", "ray"} <= found
    assert not {"pylance", "obstore", "pytest"} & found
