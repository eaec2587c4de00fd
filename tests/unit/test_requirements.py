from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

from runner.errors import BadInput
from runner.manifests.requirements import check_requirements, read_requirements


def written(folder: Path, text: str, name: str = "requirements.txt") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_with_everything_that_is_taken(tmp_path: Path) -> None:
    written(tmp_path, "attrs==25.1.0\n-r deeper.txt\n", "more/base.txt")
    written(tmp_path, "click==8.1.8\n", "more/deeper.txt")
    path = written(
        tmp_path,
        """
# what workers need
--require-hashes
-i https://one.example.com/simple
--extra-index-url=https://two.example.com/simple?a=b
--extra-index-url https://three.example.com/simple
-r more/base.txt
pillow==11.0.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb  # two of them

torch @ https://example.com/torch.whl#sha256=cc
numpy >= 2.0 ; sys_platform == "linux"
""",
    )
    read = read_requirements(path)
    assert read.requirements == [
        "attrs==25.1.0",
        "click==8.1.8",
        "pillow==11.0.0 --hash=sha256:aa --hash=sha256:bb",
        "torch @ https://example.com/torch.whl#sha256=cc",
        'numpy >= 2.0 ; sys_platform == "linux"',
    ]
    assert read.index_url == "https://one.example.com/simple"
    assert read.extra_index_urls == ["https://two.example.com/simple?a=b", "https://three.example.com/simple"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("-e .", "'-e': an editable install is a folder of this machine; give it to py_modules"),
        ("--editable=./x", "'--editable': an editable install"),
        ("-c pins.txt", "'-c': constraints are not kept"),
        ("--constraint pins.txt", "'--constraint': constraints are not kept"),
        ("-f wheels", "'-f': a folder of wheels"),
        ("--find-links wheels", "'--find-links': a folder of wheels"),
        ("--pre", "'--pre': has no meaning on a worker"),
        ("--trusted-host 'x", "'--trusted-host': has no meaning on a worker"),
        ("nump y==1", "'nump y==1' is no requirement"),
        ("./wheels/x.whl", "'./wheels/x.whl' is no requirement"),
        ("numpy=1.0", "'numpy=1.0' is no requirement: .*; write name==1.2.3"),
    ],
)
def test_what_is_refused_is_told_with_file_and_line(tmp_path: Path, line: str, problem: str) -> None:
    path = written(tmp_path, f"# a comment\nattrs \\\n  ==25.1.0\n{line}\n", "base.txt")
    outer = written(tmp_path, "-r base.txt\n")
    with pytest.raises(BadInput, match=f"^{re.escape(str(path))}:4: {problem}"):
        read_requirements(outer)


def test_a_loop_of_includes_ends(tmp_path: Path) -> None:
    written(tmp_path, "-r requirements.txt\n", "b.txt")
    path = written(tmp_path, "-r b.txt\n")
    with pytest.raises(BadInput, match=r"requirements\.txt includes itself, by way of .*requirements\.txt -> .*b\.txt"):
        read_requirements(path)


def test_one_file_may_be_included_twice(tmp_path: Path) -> None:
    written(tmp_path, "attrs==25.1.0\n", "base.txt")
    read = read_requirements(written(tmp_path, "-r base.txt\n-r ./base.txt\n"))
    assert read.requirements == ["attrs==25.1.0"]


def test_a_missing_file_is_told_with_who_includes_it(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot read the requirements .*/no\.txt: No such file"):
        read_requirements(tmp_path / "no.txt")
    path = written(tmp_path, "-r no.txt\n")
    with pytest.raises(BadInput, match=rf"cannot read the requirements .*/no\.txt \(included by {path}\)"):
        read_requirements(path)
    path.write_bytes(b"\xff")
    with pytest.raises(BadInput, match="cannot read the requirements"):
        read_requirements(path)


@pytest.mark.parametrize("text", ["numpy=2", "-e .", "", "a b", "pillow==11 --hash"])
def test_a_typo_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=rf"{re.escape(repr(text))} is no requirement"):
        check_requirements([text])


def test_a_package_is_required_once() -> None:
    with pytest.raises(BadInput, match=r"Typing_Extensions is required twice: 'typing-extensions==4.1.0' and"):
        check_requirements(["typing-extensions==4.1.0", "Typing_Extensions==4.2.0"])
    with pytest.raises(BadInput, match="attrs is required twice"):
        check_requirements(["attrs==25.1.0", "attrs==25.1.0"])


def test_what_does_not_fit_ray_or_the_runner_is_refused() -> None:
    running = metadata.version("ray")
    with pytest.raises(BadInput, match=rf"ray==1\.0 is not the Ray of the cluster and the client \({re.escape(running)}\)"):
        check_requirements(["ray==1.0"])
    with pytest.raises(BadInput, match="ray<2 is not the Ray"):
        check_requirements(["ray<2"])
    with pytest.raises(BadInput, match=r"click==6\.0 does not fit ray, which needs click>=7\.0; choose a version that does"):
        check_requirements(["click==6.0"])
    with pytest.raises(BadInput, match=r"NumPy==1\.26\.4 does not fit infill, which needs numpy>=2\.0"):
        check_requirements(["NumPy==1.26.4"])
    assert check_requirements([f"ray=={running}", "click==8.1.8", "numpy==2.1.0"]) == []


def test_what_has_no_pin_is_warned_of() -> None:
    pinned = ["attrs==25.1.0", "odd===x.y", "torch @ https://example.com/torch.whl"]
    loose = ["pillow", "networkx>=3", "rich==14.*"]
    warnings = check_requirements([*pinned, *loose])
    assert [text.partition(" has no pinned")[0] for text in warnings] == [repr(text) for text in loose]
    assert warnings[0].endswith("write pillow==VERSION")


def test_requirements_of_other_machines_are_passed_over() -> None:
    elsewhere = "sys_platform == 'amiga'"
    assert check_requirements([f"ray==1.0 ; {elsewhere}", f"pillow ; {elsewhere}", "pillow==11.0.0"]) == []
    with pytest.raises(BadInput, match="is not the Ray"):
        check_requirements(["ray==1.0 ; sys_platform != 'amiga'"])
