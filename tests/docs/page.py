"""A page's blocks, from the first to the last, in one world."""

from __future__ import annotations

import importlib
import json
import linecache
import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

from tests.docs import commands
from tests.docs.blocks import Block, blocks_of, commands_in_text
from tests.docs.files import check_yaml
from tests.docs.world import World
from tests.unit.pulumi_mocks import run_program

BUCKET = "s3://bucket/db"
BLOCK, COMMAND = "blocks of Python, YAML and JSON", "command lines"
RUN, PARSED, OTHER, EXCUSED = "run", "parsed", "of other programs", "excused"
_PULUMI = re.compile(r"^import pulumi|\b(RayCluster|GitOps)\(", flags=re.M)
_INIT = re.compile(r"^\$ (infill|python -m runner) clusters init", flags=re.M)
_JOB = re.compile(r"\b2026\d{4}\b(?!-)")
"""The day by which pages name a job."""


class Page:
    """A page, and the world that its blocks change."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.text = path.read_text()
        self.world = World(folder)

    def check(self) -> Iterator[tuple[str, str]]:
        """Check one block after the other, and say of each, and of each command, what was done with it."""
        blocks = blocks_of(self.text)
        with self.world.entered(project=not _INIT.search(self.text)) if blocks else nullcontext():
            for block in blocks:
                try:
                    yield from self._check(block)
                except Exception as exc:
                    exc.add_note(f"{self.path.name}:{block.line}")
                    raise
        for line in commands_in_text(self.text):
            for command in commands.commands_of(f"$ {line}"):
                commands.parse(command.arguments or [], whole=False)
                yield COMMAND, PARSED

    def _check(self, block: Block) -> Iterator[tuple[str, str]]:
        if block.title:
            self.world.write(block.title, block.text)
        if block.excuse or block.language == "text":
            yield BLOCK, EXCUSED
        elif block.language == "console":
            for done in self._console(block):
                yield COMMAND, done
        else:
            checks = {"python": self._python, "yaml": self._yaml, "json": self._json}
            assert block.language in checks, f"nothing checks a block of {block.language!r}: say why by <!-- not run: ... -->"
            checks[block.language](block)
            yield BLOCK, RUN

    def _python(self, block: Block) -> None:
        text = block.text.replace(BUCKET, str(self.world.bucket))
        if block.title:
            if "sys.argv" not in text:
                importlib.import_module(Path(block.title).stem)
            return
        if "create_table" not in self.text:
            self.world.complete(text)
        name = f"<{self.path.name}:{block.line}>"
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)  # for inspect.getsource
        code = compile(text, name, "exec", dont_inherit=True)
        if _PULUMI.search(text):
            with mock.patch("infra.raycluster.RayCluster._inspect", return_value=None):
                run_program(lambda: exec(code, self.world.names), preview=True).ok()
        else:
            exec(code, self.world.names)

    def _yaml(self, block: Block) -> None:
        check_yaml(block.text, block.title, self.world.folder)

    def _json(self, block: Block) -> None:
        json.loads(block.text)

    def _console(self, block: Block) -> Iterator[str]:
        if "images" in block.text:
            self.world.complete(block.text)
        text = _JOB.sub(lambda _: self.world.job(), block.text)
        for command in commands.commands_of(text.replace(BUCKET, str(self.world.bucket))):
            if command.is_script:
                commands.run_script(command)
                yield RUN
                continue
            if command.arguments is None:
                commands.check_other(command.words)
                yield OTHER
                continue
            commands.parse(command.arguments)
            if not command.is_elsewhere:
                commands.run(command, self.world.folder)
            yield PARSED if command.is_elsewhere else RUN
