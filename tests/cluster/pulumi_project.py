"""A Pulumi project in a folder of its own, worked with the real CLI."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMMANDS = ("pulumi", "pulumi-resource-kubernetes", "pulumi-language-python")
LIMIT_SECONDS = 120.0
DECLARE = "from stacks.program import declare\n\ndeclare('clusters')\n"
SMALL: dict[str, Any] = {"cpus": 1, "memory": "2Gi", "requests": {"cpus": "300m", "memory": "512Mi"}}
"""A group that fits the node beside others."""


def absent_commands() -> list[str]:
    """Programs of Pulumi's that are not on PATH."""
    return [command for command in COMMANDS if shutil.which(command) is None]


def cluster(name: str, namespace: str, **fields: Any) -> dict[str, Any]:
    """A cluster's file: a head and one worker."""
    plain = {
        "name": name,
        "namespace": namespace,
        "ray_version": "2.60.0",
        "python_version": "3.11",
        "head_group": dict(SMALL),
        "worker_groups": [worker("cpu")],
        "autoscaler": {"requests": {"cpus": "100m", "memory": "256Mi"}},
    }
    return {**plain, **fields}


def worker(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, **SMALL, "min_replicas": 1, "max_replicas": 2, **fields}


@dataclass(frozen=True)
class Done:
    """A command that ended.

    Attributes:
        said: stdout and stderr together, as a terminal shows them.
    """

    code: int
    said: str
    seconds: float

    @property
    def error(self) -> str:
        """The errors of the summary at the end, on one line."""
        found = re.findall(
            r"^    error: ((?:.|\n)*?)(?=\n    error: |\n\S|\Z)", self.said.partition("Diagnostics:")[2], re.MULTILINE
        )
        return " ".join(
            " | ".join(found).replace("| an unhandled error occurred: program exited with non-zero exit code: 1", "").split()
        )

    def ok(self) -> Done:
        assert self.code == 0, self.said
        return self

    def failed(self) -> Done:
        assert self.code != 0, self.said
        assert "Traceback" not in self.said
        return self


class Project:
    """One stack of one project. Its clusters are files of the folder `clusters`, unless it has a program of its own."""

    def __init__(self, folder: Path, home: Path, *, stack: str = "test", program: str = DECLARE, **config: Any) -> None:
        self.folder, self.stack = folder, stack
        self._environment = {
            **os.environ,
            "PULUMI_HOME": str(home),
            "PULUMI_CONFIG_PASSPHRASE": "",
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
            "PYTHONPATH": str(ROOT),
        }
        (folder / "clusters").mkdir(parents=True)
        (folder / "__main__.py").write_text(program)
        runtime = {"name": "python", "options": {"toolchain": "pip", "virtualenv": sys.prefix}}
        project = {"name": "infill-tests", "runtime": runtime, "backend": {"url": f"file://{folder}"}}
        (folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))
        self.configure(**config)
        self._run("stack", "init", stack).ok()  # which selects it

    def configure(self, **config: Any) -> None:
        """Set `infill:...` of the stack."""
        file = self.folder / f"Pulumi.{self.stack}.yaml"
        known = yaml.safe_load(file.read_text()) if file.exists() else {}
        known.setdefault("config", {}).update({f"infill:{key}": value for key, value in config.items()})
        file.write_text(yaml.safe_dump(known))

    def write(self, plain: Mapping[str, Any], file: str | None = None) -> None:
        (self.folder / "clusters" / f"{file or plain['name']}.yaml").write_text(yaml.safe_dump(dict(plain)))

    def environment(self, **variables: str) -> None:
        self._environment |= variables

    def variables(self) -> dict[str, str]:
        """The environment that its commands run in."""
        return dict(self._environment)

    def up(self, *options: str) -> Done:
        return self._run("up", "--yes", "--skip-preview", *options)

    def preview(self, *options: str) -> Done:
        return self._run("preview", "--diff", *options)

    def refresh(self, *options: str) -> Done:
        return self._run("refresh", "--yes", "--skip-preview", "--diff", *options)

    def destroy(self) -> Done:
        return self._run("destroy", "--yes", "--skip-preview")

    def outputs(self) -> dict[str, Any]:
        return dict(json.loads(self._run("stack", "output", "--json", "--show-secrets").ok().said))

    def state(self) -> str:
        """The whole state as text, secrets decrypted."""
        return self._run("stack", "export", "--show-secrets").ok().said

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """The command, running."""
        command = ["pulumi", *words, "--non-interactive", "--color", "never"]
        return subprocess.Popen(
            command, cwd=self.folder, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def _run(self, *words: str) -> Done:
        begun = time.monotonic()
        process = self.begin(*words)
        try:
            said, _ = process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # Pulumi ends what it began, and its lock
            said, _ = process.communicate(timeout=30)
            said += f"\nstopped after {LIMIT_SECONDS:g} s"
        said = "".join(line for line in said.splitlines(keepends=True) if "from $PATH at" not in line)
        return Done(process.returncode, said, time.monotonic() - begun)
