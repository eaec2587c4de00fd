"""Where Pulumi keeps the state of a database's clusters: ``<database>/_runner/pulumi``; and how its processes reach Kubernetes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from infra.kube import Access
from runner.errors import BadInput
from runner.store import Store

FOLDER = "pulumi"
PASSPHRASE = "infill"
"""Of every stack: state holds nothing that is secret, and whoever opens the database is to be able to remove what it made."""

# Lance's names of storage options, without aws_, google_ or azure_ in front, to the variables that Pulumi's backends read.
_VARIABLES = {
    "s3": {
        "access_key_id": "AWS_ACCESS_KEY_ID",
        "secret_access_key": "AWS_SECRET_ACCESS_KEY",
        "session_token": "AWS_SESSION_TOKEN",
        "token": "AWS_SESSION_TOKEN",
        "region": "AWS_REGION",
        "default_region": "AWS_REGION",
    },
    "gs": {
        "application_credentials": "GOOGLE_APPLICATION_CREDENTIALS",
        "service_account": "GOOGLE_APPLICATION_CREDENTIALS",
        "service_account_path": "GOOGLE_APPLICATION_CREDENTIALS",
        "service_account_key": "GOOGLE_CREDENTIALS",
    },
    "az": {
        "storage_account_name": "AZURE_STORAGE_ACCOUNT",
        "account_name": "AZURE_STORAGE_ACCOUNT",
        "storage_account_key": "AZURE_STORAGE_KEY",
        "account_key": "AZURE_STORAGE_KEY",
        "storage_access_key": "AZURE_STORAGE_KEY",
        "access_key": "AZURE_STORAGE_KEY",
        "storage_sas_token": "AZURE_STORAGE_SAS_TOKEN",
        "sas_token": "AZURE_STORAGE_SAS_TOKEN",
        "storage_sas_key": "AZURE_STORAGE_SAS_TOKEN",
        "sas_key": "AZURE_STORAGE_SAS_TOKEN",
    },
}
_PREFIXES = {"s3": "aws_", "gs": "google_", "az": "azure_"}
_SCHEMES = {"s3": "s3", "gs": "gs", "az": "azblob"}
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_PROFILE")


def backend_url(store: Store) -> str:
    """Pulumi's backend of a database.

    Raises:
        BadInput: storage that Pulumi has no backend for.
    """
    if store.is_local:
        return f"file://{quote(store.url(FOLDER))}"
    scheme, _, place = store.uri.partition("://")
    if scheme not in _SCHEMES:
        raise BadInput(f"{store.uri}: Pulumi keeps no state there; on-demand clusters work with a path, s3://, gs:// or az://")
    url = f"{_SCHEMES[scheme]}://{place}/{store.url(FOLDER)[len(store.uri) + 1 :]}"
    if scheme == "s3" and (endpoint := _endpoint(store)):
        url += f"?endpoint={quote(endpoint, safe='')}&s3ForcePathStyle=true"
    return url


def backend_variables(store: Store) -> dict[str, str]:
    """Environment variables that give Pulumi the credentials that the database was opened with."""
    scheme = store.uri.partition("://")[0]
    options = {} if store.is_local else _options(store, scheme)
    names = _VARIABLES.get(scheme, {})
    found = {names[key]: value for key, value in options.items() if key in names and value}
    if scheme == "s3" and _endpoint(store):  # others than AWS store the checksums that its SDK adds as part of the object
        found |= {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required", "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required"}
    return found


def kubernetes_variables(access: Access, folder: Path, database: Mapping[str, str]) -> dict[str, str]:
    """KUBECONFIG for Pulumi's processes, with a file before the others that says the context.

    Args:
        folder: where that file is written. It holds no credentials.
        database: what `backend_variables` sets. A command that gets credentials for Kubernetes (``aws eks get-token``) must see
            what it would have seen without them.
    """
    if access.kubeconfig is None:
        return {"KUBECONFIG": ""}
    configs = [yaml.safe_load(Path(path).read_text()) or {} for path in access.kubeconfig.split(os.pathsep)]
    context = access.context or next((found for config in configs if (found := config.get("current-context"))), None)
    overlay: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "current-context": context}
    if changed := [name for name in _CREDENTIALS if name in database]:
        users = [user for config in configs for user in config.get("users") or []]
        overlay["users"] = [_with_own_credentials(user, changed) for user in users if user.get("user", {}).get("exec")]
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(overlay))
    return {"KUBECONFIG": os.pathsep.join([str(path), access.kubeconfig])}


def _with_own_credentials(user: dict[str, Any], changed: list[str]) -> dict[str, Any]:
    """The user, its command with the variables that this process has; an empty one is none to AWS's tools."""
    command = user["user"]["exec"]
    own = [{"name": name, "value": os.environ.get(name, "")} for name in changed]
    given = [item for item in command.get("env") or [] if item["name"] not in changed]
    return {"name": user["name"], "user": {**user["user"], "exec": {**command, "env": [*own, *given]}}}


def _endpoint(store: Store) -> str | None:
    """Where S3 is, if it is not AWS's: as the storage options say, else the variables that Lance reads."""
    options = _options(store, "s3")
    given = options.get("endpoint") or options.get("endpoint_url")
    return given or os.environ.get("AWS_ENDPOINT") or os.environ.get("AWS_ENDPOINT_URL")


def _options(store: Store, scheme: str) -> dict[str, str]:
    return {key.lower().removeprefix(_PREFIXES[scheme]): str(value) for key, value in store.storage_options.items()}
