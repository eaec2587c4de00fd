"""The command that kubeconfigs of EKS clusters run for a token."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from runner.cli.common import exit_codes


def eks_token(
    cluster: Annotated[str, typer.Option(metavar="NAME", help="EKS cluster.")],
    region: Annotated[
        str | None,
        typer.Option(metavar="REGION", help="Its AWS region. Default: of AWS_REGION, AWS_DEFAULT_REGION or the profile."),
    ] = None,
    role: Annotated[str | None, typer.Option(metavar="ROLE", help="Name or ARN of an IAM role to assume.")] = None,
) -> None:
    """Print a Kubernetes ExecCredential for an EKS cluster, as "aws eks get-token" does."""
    from infra import eks

    with exit_codes():
        typer.echo(json.dumps(eks.eks_token(region, cluster, role)))
