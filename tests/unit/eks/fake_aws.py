"""AWS for the tests: a cluster that moto keeps, and a server that answers as AWS does."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID

ROOT = Path(__file__).parents[3]
REGION = "eu-west-1"
ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
ROLE = f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role/deployer"
CLUSTER_ARN = f"arn:aws:eks:{REGION}:{DEFAULT_ACCOUNT_ID}:cluster/prod"
USER = f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:user/ana"


def make_cluster(name: str = "prod", region: str = REGION, status: str = "ACTIVE") -> dict[str, Any]:
    client = boto3.Session().client("eks", region_name=region)
    client.create_cluster(name=name, roleArn=ROLE, resourcesVpcConfig={})
    get_backend("eks")[DEFAULT_ACCOUNT_ID][region].clusters[name].status = status
    cluster: dict[str, Any] = client.describe_cluster(name=name)["cluster"]
    return cluster


def signed_url(credential: dict[str, Any]) -> str:
    token = credential["status"]["token"]
    assert re.fullmatch(r"k8s-aws-v1\.[A-Za-z0-9_-]+", token)  # base64url, no padding
    encoded = token.removeprefix("k8s-aws-v1.")
    return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()


def query(credential: dict[str, Any]) -> dict[str, str]:
    return {key: value for key, (value,) in parse_qs(urlsplit(signed_url(credential)).query).items()}


@dataclass
class FakeAws:
    """A server that gives every request of a path or an STS action one answer, as AWS writes it."""

    url: str = ""
    answers: dict[str, tuple[int, dict[str, str], str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def rest_error(self, path: str, status: int, code: str, message: str) -> None:
        headers = {"Content-Type": "application/json", "x-amzn-ErrorType": code}
        self.answers[path] = (status, headers, json.dumps({"message": message}))

    def clusters(self, *names: str) -> None:
        self.answers["/clusters"] = (200, {"Content-Type": "application/json"}, json.dumps({"clusters": names}))

    def query_error(self, action: str, status: int, code: str, message: str) -> None:
        error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
        text = f'<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">{error}<RequestId>1</RequestId></ErrorResponse>'
        self.answers[action] = (status, {"Content-Type": "text/xml"}, text)
