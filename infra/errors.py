"""Every exception that this package raises on purpose. Each message says what failed, on what, and what to do."""

from __future__ import annotations


class InfraError(Exception):
    """Base of all errors of this package."""


class BadSpec(InfraError, ValueError):
    """Something given is wrong: a spec, a file, a kubeconfig. Nothing was changed."""


class NotAllowed(InfraError):
    """Kubernetes or a cloud refused: who may not do what, on which object."""
