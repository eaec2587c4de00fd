"""The default image of a group: Ray's own, for the Ray and Python version of the client."""

from __future__ import annotations

import sys
from importlib import metadata

from infra.errors import BadSpec

REPOSITORY = "rayproject/ray"


def client_ray_version() -> str:
    """The Ray version installed here.

    Raises:
        BadSpec: there is none.
    """
    try:
        return metadata.version("ray")
    except metadata.PackageNotFoundError:
        raise BadSpec("ray_version is not given and Ray is not installed here to take it from; set ray_version: '2.60.0'") from None


def client_python_version() -> str:
    """Major and minor of this Python: ``"3.11"``."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def default_image(ray_version: str, python_version: str, *, arch: str = "amd64", gpu: bool = False) -> str:
    """Ray's image on Docker Hub.

    Args:
        ray_version: a release, ``"2.60.0"``.
        python_version: ``"3.11"``.
        arch: ``"amd64"`` or ``"arm64"``.
        gpu: with CUDA.

    >>> default_image("2.60.0", "3.11", gpu=True)
    'rayproject/ray:2.60.0-py311-gpu'

    Source: https://docs.ray.io/en/latest/ray-overview/installation.html#docker-source-images
    """
    tag = f"{ray_version}-py{python_version.replace('.', '')}"
    return f"{REPOSITORY}:{tag}{'-gpu' if gpu else ''}{'-aarch64' if arch == 'arm64' else ''}"
