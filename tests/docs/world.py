"""What the pages speak of: a folder with two databases, ``data/db`` and ``s3://bucket/db``, and the files that others name.

Each database has a table ``images`` and definitions. Backfills run in this process, wherever a page has them run: what a context
takes is checked, and nothing is provisioned.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
from tests.docs import features

JOB = "20261123-120000-0000000"
COLUMNS = ("filename_len", "words", "caption", "embedding")
KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""
FILES = {
    "features.py": Path(features.__file__).read_text(),
    "shared/imagelib/__init__.py": "",
    "humanize.py": "def apnumber(number):\n    return {7: 'seven'}.get(number, str(number))\n",
    "pyproject.toml": "",
    "kubeconfig": KUBECONFIG,
    "clusters/images.yaml": "name: images\n",
    "manifests/dev.yaml": "name: dev\npip: [humanize==4.12.0]\n",
    "manifests/requirements.txt": "humanize==4.12.0\n",
}
_context_of = context_choice.context_of


class World:
    """The folder, and the names that Python blocks find and make.

    Attributes:
        database: ``data/db``, and `bucket` what stands for ``s3://bucket/db``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database, self.bucket = folder / "data" / "db", folder / "bucket" / "db"
        self.names: dict[str, Any] = {"__name__": "__main__"}

    @contextmanager
    def entered(self, *, project: bool) -> Iterator[None]:
        """Make the folder, and have this process run in it.

        Args:
            project: write a Pulumi project; otherwise the page does.
        """
        if project:
            _write_project(self.folder)
        for name, text in FILES.items():
            self.write(name, text)
        for database in (self.bucket, self.database):
            _define(runner.connect(database))
        self.names |= {"pa": pa, "runner": runner, "infra": infra, "udf": runner.udf, "ExitMode": runner.ExitMode}
        self.names |= {"db": runner.connect(self.database), "torch": SimpleNamespace(Tensor=list, stack=list)}
        before = set(sys.modules)
        with ExitStack() as patches:
            for patch in self._patches():
                patches.enter_context(patch)
            patches.enter_context(LocalContext("inline"))
            try:
                yield
            finally:
                for name in set(sys.modules) - before:
                    if str(getattr(sys.modules[name], "__file__", "")).startswith(str(self.folder)):
                        del sys.modules[name]

    def _patches(self) -> Iterator[Any]:
        secrets = dict.fromkeys(("HF_TOKEN", "INDEX_TOKEN"), "x")
        yield mock.patch.dict("os.environ", {**secrets, "KUBECONFIG": str(self.folder / "kubeconfig")})
        yield mock.patch.object(sys, "path", [str(self.folder), *sys.path])
        yield mock.patch.object(sys, "dont_write_bytecode", True)
        yield mock.patch.object(context_choice, "context_of", _here)
        yield mock.patch("runner.estimating.LocalContext", lambda _, **options: LocalContext("inline", **options))
        yield mock.patch("infra.registry.pinned", lambda image: f"{image}@sha256:{'0' * 64}")

    def write(self, name: str, text: str) -> None:
        """A file of the folder. A module is imported anew."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        if file.parent == self.folder:
            sys.modules.pop(file.stem, None)

    def complete(self, text: str) -> None:
        """Give the databases the table and the columns that a text names and that no block before it has made."""
        for database in (self.bucket, self.database):
            _complete(runner.connect(database), text)
        self.names.setdefault("images", runner.connect(self.database).open_table("images"))

    def job(self) -> str:
        """The id of a job that both databases have."""
        for database in (self.bucket, self.database):
            db = runner.connect(database)
            if not any(record.job_id == JOB for record in db.jobs()):
                _complete(db, "filename_len")
                db.open_table("images").backfill("filename_len", force=True, progress=False)
                _rename_job(db)
        return JOB


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
    named = [name for name in COLUMNS if re.search(rf"\b{name}\b", text)]
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
