"""No secret value is ever part of a spec: it is named, and resolved where it is used.

``${env:NAME}`` names a variable of the environment of whoever uses the spec; ``{secret: NAME, key: KEY}`` a Kubernetes Secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from infra.errors import BadSpec

REFERENCE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
OPTION_VARIABLE = "INFILL_STORAGE_OPTION_"
"""What the variables of a head begin with that hold secret storage options; the option's name follows, in capitals."""

_SECRET_NAMES = re.compile(r"(KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIALS?)(_?ID)?$", re.IGNORECASE)
# Names that end so and hold no secret.
_HARMLESS_NAMES = re.compile(r"(MAX|NUM|PAD|EOS|BOS|PRIMARY|SORT|PARTITION|PUBLIC|TOPOLOGY)_?(KEY|TOKEN)S?$", re.IGNORECASE)
# Forms that the issuers document, so that leaks can be found; and a password in an address.
_SECRET_VALUES = re.compile(
    r"(AKIA|ASIA)[0-9A-Z]{16}"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{40,}|glpat-[\w-]{20,}"  # GitHub, GitLab
    r"|xox[abprs]-[\w-]{10,}|sk-[\w-]{20,}|hf_[A-Za-z0-9]{30,}|AIza[\w-]{35}"  # Slack, OpenAI, Hugging Face, Google
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*|-----BEGIN [A-Z ]*PRIVATE KEY-----"  # JWT, PEM
    r"|://[^/\s:@$]+:[^/\s@$]+@"
)
_PATHS_AND_FLAGS = re.compile(r"[/~].*|true|false|[0-9]{1,6}", re.IGNORECASE)


def looks_secret(name: str, value: str) -> bool:
    """Whether a value, by its own form or by the name it goes under, looks like a key, token or password."""
    if _SECRET_VALUES.search(REFERENCE.sub("", value)):
        return True
    if not value or REFERENCE.search(value):
        return False
    # `key` is Kubernetes' own: of a toleration, of a label that is selected, within a Secret.
    named = name != "key" and _SECRET_NAMES.search(name) and not _HARMLESS_NAMES.search(name)
    return bool(named) and not _PATHS_AND_FLAGS.fullmatch(value)


def referenced(name: str, value: str, *, secret_ref: bool = False) -> str:
    """`value` fit to be stored: ``${env:NAME}`` where it is a secret that a variable of this environment holds, else itself.

    Args:
        name: name that the value goes under.
        value: a literal.
        secret_ref: whether the place takes a Secret's key, for the message.

    Raises:
        ValueError: a secret in plain sight.
    """
    holders = [key for key, known in os.environ.items() if known == value]
    if not looks_secret(name, value) and not any(looks_secret(key, value) for key in holders):
        return value
    if holders:
        return f"${{env:{name if name in holders else holders[0]}}}"
    or_secret = ", or {secret: NAME, key: KEY} for a Kubernetes Secret" if secret_ref else ""
    raise ValueError(
        f"{name} looks like a secret in plain sight ({len(value)} characters); "
        f"write ${{env:{name if name.isidentifier() else 'NAME'}}} and set that variable{or_secret}"
    )


def referenced_tree(tree: Any, path: str = "") -> Any:
    """`tree` with every string passed through `referenced`; keys of mappings, and ``name`` beside ``value``, are the names."""
    if isinstance(tree, Mapping):
        return {key: referenced_tree(value, _name_of(tree, key)) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [referenced_tree(item, path) for item in tree]
    return referenced(path, tree) if isinstance(tree, str) else tree


def from_environment(env: Mapping[str, Any]) -> dict[str, Any]:
    """An environment as whoever writes it down means it: a value that is that of the same variable here is its reference."""
    return {
        name: f"${{env:{name}}}" if isinstance(value, str) and value and os.environ.get(name) == value else value
        for name, value in env.items()
    }


def literal_tree(tree: Any, path: str = "") -> Any:
    """`tree`, which goes to Kubernetes as it is.

    Raises:
        ValueError: a secret in plain sight, or a reference, which nothing resolves there.
    """
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            literal_tree(value, _name_of(tree, key))
    elif isinstance(tree, list | tuple):
        for item in tree:
            literal_tree(item, path)
    elif isinstance(tree, str):
        instead = "give it in env, or in Kubernetes' form, as the key of a Secret (secretKeyRef)"
        if reference := REFERENCE.search(tree):
            raise ValueError(f"{path}: {reference[0]} is resolved in env and ray_init_kwargs only; {instead}")
        if looks_secret(path, tree):
            raise ValueError(f"{path} looks like a secret in plain sight ({len(tree)} characters); {instead}")
    return tree


def _name_of(tree: Mapping[Any, Any], key: Any) -> str:
    """The name that a value of a mapping goes under: its key, or in Kubernetes' lists the ``name`` beside ``value``."""
    named = tree.get("name")
    return named if key == "value" and isinstance(named, str) else str(key)


def variables(tree: Any) -> Iterator[str]:
    """Names of the variables that the references below `tree` ask for."""
    if isinstance(tree, Mapping):
        for value in tree.values():
            yield from variables(value)
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from variables(item)
    elif isinstance(tree, str):
        yield from REFERENCE.findall(tree)


def resolved(tree: Any, environ: Mapping[str, str] | None = None) -> Any:
    """`tree` with the references replaced by the values of `environ` (default: this process's environment). Never store the result.

    Raises:
        BadSpec: a variable is not set; all that are missing are named.
    """
    known = os.environ if environ is None else environ
    missing = sorted({name for name in variables(tree) if name not in known})
    if missing:
        raise BadSpec(f"{', '.join(missing)}: not set in this environment, and ${{env:...}} refers to it; export it and try again")
    return _replaced(tree, known)


def _replaced(tree: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(tree, Mapping):
        return {key: _replaced(value, environ) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_replaced(item, environ) for item in tree]
    return REFERENCE.sub(lambda match: environ[match[1]], tree) if isinstance(tree, str) else tree
