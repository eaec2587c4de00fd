"""Pulumi's command line and its provider of Kubernetes, which make clusters."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator

from runner.doctor.check import Check, Status

PROVIDER = "pulumi-resource-kubernetes"
TIMEOUT_SECONDS = 60.0


def look(*, needed: bool) -> Iterator[Check]:
    """The CLI, and the provider where there is a CLI.

    Args:
        needed: a cluster is to be made from here.
    """
    from infra.errors import InfraError
    from runner.provision.stack import INSTALL, pulumi_command

    otherwise: Status = "FAIL" if needed else "WARN"
    try:
        command = pulumi_command()
    except InfraError as exc:
        problem, _, remedy = str(exc).partition("; ")
        yield Check("pulumi", otherwise, problem, remedy or INSTALL)
        return
    yield Check("pulumi", "OK", f"{command.version} ({command.command})")
    yield _provider(command.command)


def _provider(command: str) -> Check:
    """One on PATH is taken before those that Pulumi has installed."""
    on_path = shutil.which(PROVIDER)
    if on_path:
        return Check("pulumi's provider of Kubernetes", "OK", on_path)
    try:
        listed = subprocess.run([command, "plugin", "ls", "--json"], capture_output=True, timeout=TIMEOUT_SECONDS, check=True)
        versions = [str(one.get("version")) for one in json.loads(listed.stdout) if one.get("name") == "kubernetes"]
    except (OSError, subprocess.SubprocessError, ValueError) as exc:
        return Check("pulumi's provider of Kubernetes", "WARN", f"`pulumi plugin ls` failed: {exc}", "run it to see why")
    if versions:
        return Check("pulumi's provider of Kubernetes", "OK", ", ".join(versions))
    remedy = (
        "pulumi plugin install resource kubernetes, on a machine that reaches get.pulumi.com; `pulumi up` does it by itself there"
    )
    return Check("pulumi's provider of Kubernetes", "WARN", "not installed yet", remedy)
