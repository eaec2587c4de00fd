"""A page's blocks, from the first to the last, in one folder with one database and one Python namespace.

The folder has what the pages speak of: the databases ``data/db`` and ``s3://bucket/db``, each with a table ``images`` and
definitions, and the files that others name. Backfills run in this process, wherever the page has them run: what a context takes is
checked, and nothing is provisioned.
"""

from __future__ import annotations

import importlib
import json
import linecache
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pyarrow as pa

import infra
import runner
from runner import Connection, ManifestFactory, context_choice
from runner.context import Context
from runner.context_choice import Wishes
from runner.local_context import LocalContext
from runner.store import Store
from stacks.new import write_project
from tests.docs import commands, features
from tests.docs.blocks import Block, blocks_of, commands_in_text
from tests.docs.files import check_yaml
from tests.unit.pulumi_mocks import run_program

BUCKET = "s3://bucket/db"
BLOCK, COMMAND = "blocks of Python, YAML and JSON", "command lines"
RUN, PARSED, OTHER, EXCUSED = "run", "parsed", "of other programs", "excused"
KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""
_PULUMI = re.compile(r"^import pulumi|\b(RayCluster|GitOps)\(", flags=re.M)
_JOB = re.compile(r"\b2026\d{4}\b(?!-)")
JOB = "20261123-120000-0000000"
_INIT = re.compile(r"^\$ (infill|python -m runner) clusters init", flags=re.M)
_context_of = context_choice.context_of


class Page:
    """A page and the state that its blocks have left."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.text = path.read_text()
        self.folder = folder
        self.database = folder / "data" / "db"
        self.bucket = folder / "bucket" / "db"
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def check(self) -> Iterator[tuple[str, str]]:
        """Check one block after the other, and say of each, and of each command, what was done with it."""
        blocks = blocks_of(self.text)
        with _prepared(self) if blocks else nullcontext():
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
            self._write(block)
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
        text = block.text.replace(BUCKET, str(self.bucket))
        if block.title:
            if "sys.argv" not in text:
                importlib.import_module(Path(block.title).stem)
            return
        if "create_table" not in self.text:
            self._complete(text)
        name = f"<{self.path.name}:{block.line}>"
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)  # for inspect.getsource
        code = compile(text, name, "exec", dont_inherit=True)
        if _PULUMI.search(text):
            with mock.patch("infra.raycluster.RayCluster._inspect", return_value=None):
                run_program(lambda: exec(code, self.names), preview=True).ok()
        else:
            exec(code, self.names)

    def _yaml(self, block: Block) -> None:
        check_yaml(block.text, block.title, self.folder)

    def _json(self, block: Block) -> None:
        json.loads(block.text)

    def _console(self, block: Block) -> Iterator[str]:
        if "images" in block.text:
            self._complete(block.text)
        text = _JOB.sub(lambda _: self._job(), block.text)
        for command in commands.commands_of(text.replace(BUCKET, str(self.bucket))):
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
                commands.run(command, self.folder)
            yield PARSED if command.is_elsewhere else RUN

    def _complete(self, text: str) -> None:
        for database in (self.bucket, self.database):
            db = runner.connect(database)
            _complete(db, text)
        self.names.setdefault("images", db.open_table("images"))

    def _job(self) -> str:
        """The id of a job that both databases have, for the one that a page names by the day."""
        for database in (self.bucket, self.database):
            db = runner.connect(database)
            if not any(record.job_id == JOB for record in db.jobs()):
                _complete(db, "filename_len")
                db.open_table("images").backfill("filename_len", force=True, progress=False)
                _rename_job(db)
        return JOB

    def _write(self, block: Block) -> None:
        assert block.title is not None
        file = self.folder / block.title
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text)
        sys.modules.pop(file.stem, None)  # a page may write a module anew


@contextmanager
def _prepared(page: Page) -> Iterator[None]:
    """The folder, its database, and what its blocks find imported."""
    if not _INIT.search(page.text):
        _write_project(page.folder)
    _write_files(page.folder)
    for database in (page.bucket, page.database):
        db = runner.connect(database)
        _define(db)
    before = set(sys.modules)
    page.names.update({"pa": pa, "runner": runner, "infra": infra, "udf": runner.udf, "ExitMode": runner.ExitMode, "db": db})
    page.names.update({"torch": SimpleNamespace(Tensor=list, stack=list)})
    environment = {
        "PULUMI_CONFIG_PASSPHRASE": "",
        "HF_TOKEN": "x",
        "INDEX_TOKEN": "x",
        "KUBECONFIG": str(page.folder / "kubeconfig"),
    }
    with (
        mock.patch.object(context_choice, "context_of", _here),
        mock.patch.object(sys, "dont_write_bytecode", True),
        mock.patch.object(sys, "path", [str(page.folder), *sys.path]),
        mock.patch("runner.estimating.LocalContext", lambda _, **options: LocalContext("inline", **options)),
        mock.patch("infra.registry.pinned", lambda image: f"{image}@sha256:{'0' * 64}"),
        mock.patch.dict("os.environ", environment),
        LocalContext("inline", store=db.store),
    ):
        try:
            yield
        finally:
            for name in set(sys.modules) - before:
                if str(getattr(sys.modules[name], "__file__", "")).startswith(str(page.folder)):
                    del sys.modules[name]


def _write_files(folder: Path) -> None:
    for name, text in {
        "features.py": Path(features.__file__).read_text(),
        "shared/imagelib/__init__.py": "",
        "humanize.py": "def apnumber(number):\n    return {7: 'seven'}.get(number, str(number))\n",
        "pyproject.toml": "",
        "kubeconfig": KUBECONFIG,
        "clusters/images.yaml": "name: images\n",
        "manifests/dev.yaml": "name: dev\npip: [humanize==4.12.0]\n",
        "manifests/requirements.txt": "humanize==4.12.0\n",
    }.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def _write_project(folder: Path) -> None:
    """What `clusters init` writes, with the one stack that needs nothing of a cloud or of GitHub."""
    write_project(folder)
    for stack in ("gpu", "eks"):
        (folder / f"Pulumi.{stack}.yaml").unlink()


def _define(db: Connection) -> None:
    for name in ("dev", "prod", "images"):
        db.define_manifest(name, ManifestFactory.create_pip(name).pip(["humanize==4.12.0"]).build())
    for name in ("gpu", "images"):
        db.define_cluster(name, infra.Cluster.create_kuberay(name).build())


def _rename_job(db: Connection) -> None:
    """Give the latest job the id that it has in both databases."""
    record = db.jobs()[0]
    folder = Path(db.uri) / "_runner" / "jobs"
    for file in folder.glob(f"{record.job_id}.*"):
        text = file.read_bytes().replace(record.job_id.encode(), JOB.encode())
        file.with_name(file.name.replace(record.job_id, JOB)).write_bytes(text)
        file.unlink()


def _complete(db: Connection, text: str) -> None:
    """Give the database the table and the columns that a text names and that no block before it has made."""
    if "images" not in db.table_names():
        db.create_table("images", pa.table({"filename": ["cat.png", "elephant.jpg"]}))
    images = db.open_table("images")
    named = [name for name in ("filename_len", "words", "caption", "embedding") if re.search(rf"\b{name}\b", text)]
    missing = [name for name in named if name not in images.schema.names]
    if "words" in missing and "filename_len" not in images.schema.names:
        missing.append("filename_len")
    if missing:
        images.add_columns({name: getattr(features, name) for name in missing})


def _here(connection: Connection | None, cluster: Any, manifest: Any, wishes: Wishes) -> Context:
    """What is given is checked as always; then the work is done in this process."""
    if not wishes.stack:
        with mock.patch.object(Store, "is_local", False):
            _context_of(connection, cluster, manifest, wishes)
    return LocalContext("inline")
