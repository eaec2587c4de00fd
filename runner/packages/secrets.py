"""Which files hold secrets: by name and by content. Each answer is what the secret is, None where there is none."""

from __future__ import annotations

import re
from collections.abc import Sequence

_KEY = "private key"
_CLOUD = "cloud credentials"
_KUBE = "kubeconfig"
_ENV = "environment file"
_PASSWORDS = "passwords"

_FOLDERS = {
    ".aws": _CLOUD,
    ".azure": _CLOUD,
    ".gnupg": "keys of GnuPG",
    ".kube": _KUBE,
    ".oci": _CLOUD,
    ".ssh": "keys of SSH",
}
_NAMES = {
    **dict.fromkeys((".env", ".envrc"), _ENV),
    **dict.fromkeys((f"id_{kind}" for kind in ("rsa", "dsa", "ecdsa", "ecdsa_sk", "ed25519", "ed25519_sk", "xmss")), _KEY),
    **dict.fromkeys(("application_default_credentials.json", "access_tokens.db", "credentials.db", ".boto", ".s3cfg"), _CLOUD),
    **dict.fromkeys(("kubeconfig", "kubeconfig.yaml", "kubeconfig.yml", "kubeconfig.json", ".kubeconfig"), _KUBE),
    **dict.fromkeys((".netrc", "_netrc", ".git-credentials", ".pgpass", ".my.cnf", ".htpasswd"), _PASSWORDS),
    **dict.fromkeys((".pypirc", ".databrickscfg", ".vault-token", "kaggle.json"), "access token"),
    **dict.fromkeys((".dockercfg", ".dockerconfigjson"), "registry credentials"),
}
_ENDINGS = {
    **dict.fromkeys(("pem", "key"), _KEY),
    **dict.fromkeys(("ppk", "p12", "pfx", "jks", "keystore"), _KEY),
    **dict.fromkeys(("kdbx", "kdb"), "password database"),
    "env": _ENV,
    "kubeconfig": _KUBE,
    "tfstate": "Terraform state",
}
_PUBLIC_OR_NOT = ("pem", "key")  # in site-packages certificates of everybody, told apart by content
_TEMPLATES = ("example", "sample", "template")

LOOKED_INTO = {"", "json", "yaml", "yml", "conf", "config", "cfg", "txt", "crt", "cer", "cert", "npmrc", *_PUBLIC_OR_NOT}
"""Endings of files whose content is looked at."""
LARGEST = 1 << 20
"""Files above are not looked into."""

_PEM = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----\s+\S")
_GOOGLE = re.compile(rb'"type"\s*:\s*"(service_account|authorized_user|external_account_authorized_user)"')
_KUBE_KIND = re.compile(rb"""^["']?kind["']?\s*:\s*["']?Config["']?\s*$""", re.MULTILINE)
_KUBE_USERS = re.compile(rb"""^["']?users["']?\s*:""", re.MULTILINE)
_KUBE_JSON = re.compile(rb'"kind"\s*:\s*"Config"')
_NPM = re.compile(rb"(?:^|:)_(?:authToken|auth|password)\s*=", re.MULTILINE)
_DOCKER = re.compile(rb'"auths"\s*:\s*\{\s*"')


def in_folder(name: str, parent: str) -> str | None:
    """The secrets that a folder of that name is made for."""
    return _CLOUD if name == "gcloud" and parent == ".config" else _FOLDERS.get(name)


def by_name(path: str, *, site: bool = False) -> str | None:
    """The secret that a file is by its name.

    Args:
        path: or the end of it: the name, and the folder's that it lies in.
        site: whether it lies in site-packages, where key and certificate files are told apart by content.
    """
    lower = path.rpartition("/")[2].lower()
    if (found := _NAMES.get(lower)) is not None:
        return found
    stem, _, ending = lower.rpartition(".")
    if lower.startswith(".env.") and ending not in _TEMPLATES:
        return _ENV
    if lower == "config.json" and path.endswith(".docker/config.json"):
        return "registry credentials"
    if ".tfstate." in lower:
        return _ENDINGS["tfstate"]
    if site and ending in _PUBLIC_OR_NOT:
        return None
    return _ENDINGS.get(ending) if stem else None


def by_path(parts: Sequence[str]) -> str | None:
    """The secret that a file is by its name, or by a folder on the way to it."""
    for parent, name in zip(("", *parts), parts[:-1], strict=False):
        if (found := in_folder(name, parent)) is not None:
            return found
    return by_name("/".join(parts[-2:]))


def worth_looking(name: str, size: int) -> bool:
    """Whether the content of a file may tell that it is a secret."""
    return size <= LARGEST and ending_of(name) in LOOKED_INTO


def ending_of(name: str) -> str:
    """``json`` of ``a.json``; ``npmrc`` of ``.npmrc``."""
    return name.lower().rpartition(".")[2] if "." in name else ""


def by_content(name: str, content: bytes) -> str | None:
    """The secret that a file is by its content."""
    ending = ending_of(name)
    if ending == "npmrc":
        return "access token" if _NPM.search(content) else None
    if b"-----BEGIN " in content and ending not in ("json", "yaml", "yml") and _PEM.search(content):
        return _KEY
    if ending in ("json", "") and (found := _in_json(content)):
        return found
    if ending != "json" and b"Config" in content and _KUBE_KIND.search(content) and _KUBE_USERS.search(content):
        return _KUBE
    return None


def _in_json(content: bytes) -> str | None:
    if b'"private_key"' in content or b'"refresh_token"' in content:
        found = _GOOGLE.search(content)
        if found:
            return "service account key" if found[1] == b"service_account" else _CLOUD
    if b'"users"' in content and _KUBE_JSON.search(content):
        return _KUBE
    return "registry credentials" if b'"auths"' in content and b'"auth"' in content and _DOCKER.search(content) else None
