"""Console blocks: every command line of ours is parsed by the real command line, and run where it needs no cluster."""

from __future__ import annotations

import contextlib
import doctest
import importlib.util
import io
import itertools
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import typer
from typer.testing import CliRunner

from runner.cli import app
from tests.docs.blocks import ROOT

NEEDS_KUBERNETES = {("diff",), *(("clusters", name) for name in ("diff", "up", "down", "status", "gc"))}
NEEDS_TERMINAL = {("top",)}
NEEDS_BUILDER = {("manifests", "build")}
NEEDS_AWS = {("eks-token",)}
ELSEWHERE = NEEDS_KUBERNETES | NEEDS_TERMINAL | NEEDS_BUILDER | NEEDS_AWS
MAY_FIND_SOMETHING = {("manifests", "diff"), ("manifests", "check"), ("policy", "check"), ("doctor",)}
"""Commands whose exit code says whether they found something; and so has `render --check`."""
HERE = ("inline", "local")
OTHERS = {"aws", "cd", "cp", "eksctl", "export", "gcloud", "git", "helm", "kubectl", "mkdir", "pulumi", "source"}
"""Programs that are not ours, and the shell's own words."""
_PROMPT = "$ "


@dataclass(frozen=True)
class Command:
    """A line after a prompt.

    Attributes:
        words: as the shell gives them to a program.
        output: what the block says it prints; ``...`` stands for any text.
        to: file that the output goes to.
    """

    words: tuple[str, ...]
    output: str
    to: str | None = None

    @property
    def arguments(self) -> list[str] | None:
        """Of our own command line; None where it is another program."""
        words = list(self.words)
        if words[:1] == ["infill"]:
            return words[1:]
        return words[3:] if words[:3] == ["python", "-m", "runner"] else None

    @property
    def is_script(self) -> bool:
        """Whether it is a Python script of the folder."""
        return self.words[0] == "python" and self.words[1].endswith(".py")

    @property
    def is_elsewhere(self) -> bool:
        """Whether it needs a cluster, or something else that is not here."""
        words = self.arguments or []
        cluster = _option(words, "--cluster")
        if "--once" in words:
            return False
        return self.is_one_of(ELSEWHERE) or (cluster is not None and cluster not in HERE) or "--stack" in words

    def is_one_of(self, commands: set[tuple[str, ...]]) -> bool:
        """Whether it begins with the words of one of them."""
        words = self.arguments or []
        return any(tuple(words[: len(one)]) == one for one in commands)


def commands_of(text: str) -> list[Command]:
    """The commands of a console block. A line without a prompt is output of the command before it."""
    found: list[tuple[str, list[str]]] = []
    for line in re.sub(r"\\\n\s*(> )?", "", text).splitlines():
        if line.startswith(_PROMPT):
            found.append((line.removeprefix(_PROMPT), []))
        else:
            assert found, f"a console block begins with '{_PROMPT}', not with {line!r}"
            found[-1][1].append(line)
    return [_command(line, "\n".join(output)) for line, output in found]


def parse(arguments: Sequence[str], *, whole: bool = True) -> None:
    """Have the command line take them, without running anything.

    Args:
        whole: whether all that the command needs has to be there.

    Raises:
        Exception: no such command or option, or a value that it does not take.
    """
    command: Any = typer.main.get_command(app)
    context = command.make_context("infill", list(arguments))
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        try:
            context = command.make_context(name, rest, parent=context)
        except Exception as exc:
            if whole or type(exc).__name__ != "MissingParameter":
                raise
            return


def run(command: Command, folder: Path) -> None:
    """Run it in this process, and compare what it prints.

    Raises:
        AssertionError: it fails, or prints something else.
    """
    done = CliRunner().invoke(app, command.arguments, prog_name="infill")
    shown = f"{shlex.join(command.words)}\n{done.output}"
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise AssertionError(shown) from done.exception
    finds = command.is_one_of(MAY_FIND_SOMETHING) or "--check" in command.words
    good = (0, 1, 2) if finds else (0,)
    refused = command.output.startswith(("error: ", "runner: "))
    assert (done.exit_code == 2) if refused else (done.exit_code in good), f"exit code {done.exit_code}: {shown}"
    if command.to:
        (folder / command.to).write_text(done.stdout)
    _compare(command, done.output)


def run_script(command: Command) -> None:
    """Run a script of the folder in this process, and compare what it prints.

    Raises:
        AssertionError: it prints something else.
    """
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), mock.patch.object(sys, "argv", list(command.words[1:])):
        runpy.run_path(command.words[1], run_name="__main__")
    _compare(command, printed.getvalue())


def check_other(words: Sequence[str]) -> None:
    """A command of another program: what of it is ours is there.

    Raises:
        AssertionError: no such target of make, module or extra, or a program that nobody thought of.
    """
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.M)
        assert {word for word in words[1:] if "=" not in word} <= set(targets), words
    elif words[0] == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.findall(r"infill\[(\w+)\]", " ".join(words))) <= set(extras), words
    elif words[0].endswith("python"):
        assert words[1] == "-m", words
        assert importlib.util.find_spec(words[2]) is not None, words
    else:
        assert words[0] in OTHERS, f"{words[0]} is none of the programs that pages use"


def _compare(command: Command, printed: str) -> None:
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    if command.output.strip() and not doctest.OutputChecker().check_output(command.output, printed, options):
        raise AssertionError(f"{shlex.join(command.words)}: the page says\n{command.output}\nand it prints\n{printed}")


def _command(line: str, output: str) -> Command:
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    if "|" in words:
        check_other(words[words.index("|") + 1 :])
        words = words[: words.index("|")]
    to = words[words.index(">") + 1] if ">" in words else None
    return Command(tuple(words[: words.index(">")] if to else words), output, to)


def _option(words: Sequence[str], name: str) -> str | None:
    return next((value for given, value in itertools.pairwise(words) if given == name), None)
