"""`gitops`: the Stack resource by which the Pulumi Kubernetes Operator brings up a folder of a git repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.cli.common import exit_codes

if TYPE_CHECKING:
    from infra.groups import SecretKey

SECRETS = "A variable of a Secret's key, e.g. PULUMI_ACCESS_TOKEN; may be repeated."


def gitops(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the Stack and its service account.")],
    repository: Annotated[str, typer.Option(metavar="URL", help="Of the git repository.")],
    stack: Annotated[str, typer.Option(metavar="NAME", help="Pulumi's name of the stack.")],
    branch: Annotated[str, typer.Option(metavar="NAME", help="That is followed.")] = "main",
    folder: Annotated[str, typer.Option(metavar="PATH", help="Of the repository, where Pulumi.yaml is.")] = ".",
    namespace: Annotated[str, typer.Option(metavar="NAME", help="Of the Stack.")] = "default",
    backend: Annotated[str | None, typer.Option(metavar="URL", help="Of the state. Default: Pulumi Cloud.")] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="NAME=SECRET/KEY", help=SECRETS)] = None,
    git_token: Annotated[str | None, typer.Option(metavar="SECRET/KEY", help="Access token of a private repository.")] = None,
    image: Annotated[str | None, typer.Option(metavar="IMAGE", help="Of the pod that runs Pulumi.")] = None,
    resync: Annotated[int | None, typer.Option(metavar="SECONDS", help="Mend what drifts so often. Default: never.")] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Only say what would change.")] = False,
    destroy: Annotated[bool, typer.Option("--destroy", help="Destroy the clusters when the Stack is deleted.")] = False,
    cluster_admin: Annotated[bool, typer.Option("--cluster-admin", help="As a stack with infill:operator needs it.")] = False,
) -> None:
    """Print a Stack of the Pulumi Kubernetes Operator, its service account and its rights, as YAML to apply."""
    with exit_codes():
        from infra.files import to_yaml
        from infra.gitops_bodies import GitOpsStack, gitops_resources

        given: dict[str, Any] = {
            "name": name, "namespace": namespace, "stack": stack, "repository": repository, "branch": branch, "folder": folder,
            "backend": backend, "env": dict(map(_variable, env or [])), "resync_seconds": resync, "preview": preview,
            "git_token": _secret_key("--git-token", git_token) if git_token else None,
            "destroy": destroy, "cluster_admin": cluster_admin, **({"image": image} if image else {}),
        }  # fmt: skip
        typer.echo("---\n".join(map(to_yaml, gitops_resources(GitOpsStack(**given)))), nl=False)


def _variable(text: str) -> tuple[str, SecretKey]:
    name, _, reference = text.partition("=")
    return name, _secret_key("--env", reference)


def _secret_key(option: str, text: str) -> SecretKey:
    from infra.errors import BadSpec
    from infra.groups import SecretKey

    secret, slash, key = text.partition("/")
    if not slash:
        raise BadSpec(f"{option}: {text!r} names no key of a Secret; write SECRET/KEY, never the value itself")
    return SecretKey(secret=secret, key=key)
