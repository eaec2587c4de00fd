"""The syntax of Kubernetes' names, labels, quantities and images. Each check raises ValueError with the rule and the remedy."""

from __future__ import annotations

import ipaddress
import re
from decimal import Decimal

# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL_1123 = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_QUANTITY = re.compile(r"(?P<number>[0-9]+(\.[0-9]*)?|\.[0-9]+)(?P<suffix>[numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?")
# https://github.com/distribution/reference: [host[:port]/]path[:tag][@digest]
_IMAGE = re.compile(
    r"(?P<host>[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]+)?/)?"
    r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
_ENV_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")

_SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate(("K", "M", "G", "T", "P", "E"), 1)},
}  # fmt: skip


def dns_1035(name: str, longest: int = 63) -> str:
    """A name that starts with a letter: of a RayCluster, a Service."""
    if len(name) > longest:
        raise ValueError(f"{name!r} has {len(name)} characters, at most {longest} fit the names that are made of it")
    if not _LABEL_1035.fullmatch(name):
        raise ValueError(f"{name!r} is not lowercase letters, digits and '-', starting with a letter and not ending with '-'")
    return name


def dns_1123(name: str, longest: int = 63) -> str:
    """A name that may start with a digit: of a namespace, a group, a volume."""
    if len(name) > longest:
        raise ValueError(f"{name!r} has {len(name)} characters, at most {longest} are allowed")
    if not _LABEL_1123.fullmatch(name):
        raise ValueError(f"{name!r} is not lowercase letters, digits and '-', with a letter or digit at both ends")
    return name


def subdomain(name: str) -> str:
    """A name with dots: of a service account, a Secret, a priority class."""
    if len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        raise ValueError(f"{name!r} is not lowercase letters, digits, '-' and '.', with a letter or digit at both ends")
    return name


def label_key(key: str) -> str:
    """``name`` or ``prefix/name``, of a label, an annotation or a resource."""
    prefix, slash, name = key.rpartition("/")
    if (slash and not _SUBDOMAIN.fullmatch(prefix)) or not _QUALIFIED.fullmatch(name) or len(name) > 63 or len(prefix) > 253:
        raise ValueError(
            f"{key!r} is no label key: [prefix/]name, name of letters, digits, '-', '_' and '.', at most 63 characters"
        )
    return key


def label_value(value: str) -> str:
    if value and (len(value) > 63 or not _QUALIFIED.fullmatch(value)):
        raise ValueError(
            f"{value!r} is no label value: at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends"
        )
    return value


def resource(name: str) -> str:
    """The name of a kind of accelerator."""
    if "/" not in name:
        raise ValueError(f"{name!r} has no vendor; write nvidia.com/gpu")
    return label_key(name)


def env_name(name: str) -> str:
    if not _ENV_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of an environment variable: letters, digits, '-', '_' and '.', not a digit first")
    return name


def image(reference: str) -> str:
    """A container image: ``[host[:port]/]path[:tag][@sha256:...]``."""
    if not _IMAGE.fullmatch(reference):
        raise ValueError(f"{reference!r} is no image: [registry/]name[:tag][@sha256:digest], name in lowercase")
    return reference


def address_block(text: str) -> str:
    """A block of addresses, of a NetworkPolicy, in the one form that Kubernetes does not warn of."""
    try:
        block = str(ipaddress.ip_network(text, strict=False)) if "/" in text else ""
    except ValueError:
        block = ""
    if block != text:
        remedy = f"it is the block {block}" if block else "write 10.0.0.0/8 or fd00::/8"
        raise ValueError(f"{text!r} is no block of addresses; {remedy}")
    return text


def quantity(text: str) -> str:
    """A Kubernetes quantity that is more than zero, as it was written."""
    parsed(text)
    return text


SMALLEST_MEMORY = Decimal(10**6)


def memory(text: str) -> str:
    """A quantity of bytes that a process can live in; a number alone is bytes, and mostly meant as Gi."""
    if parsed(text) < SMALLEST_MEMORY:
        raise ValueError(f"{text!r} is {parsed(text):f} bytes; write 8Gi")
    return text


def own_label_key(key: str) -> str:
    """The key of a label that a user may set: not one by which Infill or KubeRay knows its objects."""
    if key.startswith(("infill/", "ray.io/")) and key not in ("ray.io/scheduler-name", "ray.io/priority-class-name"):
        raise ValueError(f"{key!r} is set by {key.partition('/')[0]} itself; choose another prefix")
    return label_key(key)


def parsed(text: str) -> Decimal:
    """The number that a quantity means: ``"500m"`` is 0.5, ``"1Gi"`` 1073741824.

    Raises:
        ValueError: no quantity, or not more than zero.
    """
    match = _QUANTITY.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no quantity; write 2, 500m, 8Gi or 16G")
    suffix = match["suffix"] or ""
    scale = _SUFFIXES[suffix] if suffix in _SUFFIXES else Decimal(f"1{suffix}")
    number = Decimal(match["number"]) * scale
    if number <= 0:
        raise ValueError(f"{text!r} is not more than zero")
    return number
