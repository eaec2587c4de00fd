"""EKS: what AWS refuses, by moto or by a server that answers as AWS does."""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID

from infra.eks import eks_kubeconfig, eks_token
from infra.errors import BadSpec, InfraError, NotAllowed
from tests.unit.eks.fake_aws import (
    CLUSTER_ARN,
    REGION,
    ROLE,
    USER,
    FakeAws,
    make_cluster,
)


def test_no_credentials(no_aws: None) -> None:
    for ask in (eks_kubeconfig, eks_token):
        with pytest.raises(NotAllowed, match=r"EKS cluster 'prod' in eu-west-1: there are no AWS credentials here; .*AWS_PROFILE"):
            ask(REGION, "prod", None)
    with pytest.raises(NotAllowed, match=r"cannot assume role arn.*deployer: there are no AWS credentials here"):
        eks_token(REGION, "prod", ROLE)


def test_half_of_the_credentials(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(BadSpec, match="credentials are incomplete; set both"):
        eks_token(REGION, "prod", None)


def test_no_region(keys: None) -> None:
    for ask in (eks_kubeconfig, eks_token):
        with pytest.raises(BadSpec, match="no region; give one, or set AWS_REGION, or a region in the AWS profile"):
            ask(None, "prod", None)


def test_no_such_profile(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "wrok")
    for region in (REGION, None):
        with pytest.raises(BadSpec, match=r"there is no such AWS profile; set AWS_PROFILE .*wrok"):
            eks_kubeconfig(region, "prod", None)


def test_an_sso_login_that_is_missing(no_aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["[profile sso]", "sso_start_url = https://x.awsapps.com/start", f"sso_region = {REGION}"]
    (tmp_path / ".aws").mkdir()
    config = tmp_path / ".aws" / "config"
    config.write_text("\n".join([*lines, f"sso_account_id = {DEFAULT_ACCOUNT_ID}", "sso_role_name = dev", ""]))
    monkeypatch.setenv("AWS_PROFILE", "sso")
    with pytest.raises(NotAllowed, match=r"login of this profile is missing or has expired; log in again \(`aws sso login`\)"):
        eks_token(REGION, "prod", None)


def test_a_credential_process_that_fails(no_aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text(f"[default]\ncredential_process = {sys.executable} -c 'import sys; sys.exit(3)'\n")
    with pytest.raises(NotAllowed, match="AWS credentials cannot be fetched; correct the profile"):
        eks_token(REGION, "prod", None)


def test_a_cluster_that_is_not_there(aws: None) -> None:
    with pytest.raises(BadSpec, match=r"cannot use EKS cluster 'prdo' in eu-west-1: .*there are no clusters at all"):
        eks_kubeconfig(REGION, "prdo", None)
    make_cluster("prod")
    make_cluster("dev")
    make_cluster("elsewhere", "us-east-1")
    with pytest.raises(BadSpec) as raised:
        eks_kubeconfig(REGION, "prdo", None)
    assert str(raised.value) == "cannot use EKS cluster 'prdo' in eu-west-1: there is none of that name; there are dev, prod"


def test_other_clusters_are_named_in_order(fake: FakeAws) -> None:
    fake.rest_error("/clusters/prod", 404, "ResourceNotFoundException", "No cluster found for name: prod.")
    fake.clusters("prod-2", "dev", "prod-1")
    with pytest.raises(BadSpec, match=r"there is none of that name; there are dev, prod-1, prod-2$"):
        eks_kubeconfig(REGION, "prod", None)


def test_a_cluster_that_is_not_there_where_listing_is_refused(fake: FakeAws) -> None:
    fake.rest_error("/clusters/prod", 404, "ResourceNotFoundException", "No cluster found for name: prod.")
    fake.rest_error("/clusters", 403, "AccessDeniedException", f"User: {USER} is not authorized to perform: eks:ListClusters")
    with pytest.raises(BadSpec, match="there is none of that name; check name, region and account"):
        eks_kubeconfig(REGION, "prod", None)
    assert fake.asked == ["/clusters/prod", "/clusters"]


@pytest.mark.parametrize("status", ["CREATING", "DELETING", "FAILED", "PENDING"])
def test_a_cluster_that_is_not_in_service(aws: None, status: str) -> None:
    make_cluster(status=status)
    with pytest.raises(InfraError, match=f"EKS cluster 'prod' in eu-west-1: it is {status}, not ACTIVE; run this again when it is"):
        eks_kubeconfig(REGION, "prod", None)


def test_a_cluster_that_is_updated_is_in_service(aws: None) -> None:
    make_cluster(status="UPDATING")
    assert eks_kubeconfig(REGION, "prod", None)["current-context"].endswith("prod")


def test_describing_is_denied(fake: FakeAws) -> None:
    why = "because no identity-based policy allows the eks:DescribeCluster action"
    said = f"User: {USER} is not authorized to perform: eks:DescribeCluster on resource: {CLUSTER_ARN} {why}"
    fake.rest_error("/clusters/prod", 403, "AccessDeniedException", said)
    with pytest.raises(NotAllowed) as raised:
        eks_kubeconfig(REGION, "prod", None)
    assert str(raised.value) == (
        f"cannot use EKS cluster 'prod' in eu-west-1: {USER} may not eks:DescribeCluster on resource: {CLUSTER_ARN} {why}; "
        "let its IAM policy allow eks:DescribeCluster on the cluster, or name a role that is allowed to"
    )


def test_describing_is_denied_in_few_words(fake: FakeAws) -> None:
    fake.rest_error("/clusters/prod", 403, "AccessDeniedException", "Forbidden")
    with pytest.raises(NotAllowed, match=r"'prod' in eu-west-1: the caller may not eks:DescribeCluster \(Forbidden\); let its IAM"):
        eks_kubeconfig(REGION, "prod", None)


@pytest.mark.parametrize("ask", [eks_kubeconfig, eks_token])
def test_assuming_is_denied(fake: FakeAws, ask: Any) -> None:
    said = f"User: {USER} is not authorized to perform: sts:AssumeRole on resource: {ROLE}"
    fake.query_error("AssumeRole", 403, "AccessDenied", said)
    with pytest.raises(NotAllowed) as raised:
        ask(REGION, "prod", ROLE)
    assert str(raised.value) == (
        f"cannot assume role {ROLE}: {USER} may not sts:AssumeRole on resource: {ROLE}; the role must exist, its trust policy "
        "must name who assumes it, and the policy of who does must allow it"
    )
    assert fake.asked == ["AssumeRole"]  # nothing went on without the role


@pytest.mark.parametrize(
    ("status", "code", "message", "expected"),
    [
        (403, "ExpiredTokenException", "The security token included in the request is expired", "credentials have expired; log in"),
        (403, "UnrecognizedClientException", "The security token included in the request is invalid", "does not know these"),
        (403, "InvalidSignatureException", "Signature expired: 20260101T000000Z is now earlier", "this machine's clock is wrong"),
        (400, "InvalidRequestException", "Something new", "AWS answered InvalidRequestException"),
    ],
)
def test_eks_refuses_the_credentials(fake: FakeAws, status: int, code: str, message: str, expected: str) -> None:
    fake.rest_error("/clusters/prod", status, code, message)
    with pytest.raises(InfraError, match=f"cannot use EKS cluster 'prod' in eu-west-1: .*{expected}.* AWS: {message}") as raised:
        eks_kubeconfig(REGION, "prod", None)
    assert isinstance(raised.value, NotAllowed) == (status == 403)


@pytest.mark.parametrize(
    ("role", "action", "doing"),
    [
        (ROLE, "AssumeRole", "cannot assume role arn:"),
        ("deployer", "GetCallerIdentity", "cannot find out whose role 'deployer' is"),
    ],
)
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("ExpiredToken", "the AWS credentials have expired; log in again"),
        ("InvalidClientTokenId", "AWS does not know these credentials"),
        ("SignatureDoesNotMatch", "the secret key does not belong to the access key"),
        ("RegionDisabledException", "the account has not enabled STS in this region"),
    ],
)
def test_sts_refuses_the_credentials(fake: FakeAws, role: str, action: str, doing: str, code: str, expected: str) -> None:
    fake.query_error(action, 403, code, "in the words of AWS")
    with pytest.raises(NotAllowed, match=f"{doing}.*{expected}.* AWS: in the words of AWS"):
        eks_token(REGION, "prod", role)


def test_nobody_answers(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    unreachable = rf"no answer from AWS; check the spelling of the region, the network .*127\.0\.0\.1:{port}"
    with pytest.raises(InfraError, match=f"cannot use EKS cluster 'prod' in eu-west-1: {unreachable}"):
        eks_kubeconfig(REGION, "prod", None)
    with pytest.raises(InfraError, match=f"cannot assume role .*: {unreachable}"):
        eks_token(REGION, "prod", ROLE)


def test_somebody_hangs_up(fake: FakeAws) -> None:
    with pytest.raises(InfraError, match=r"cannot use EKS cluster 'prod' in eu-west-1: no answer from AWS; check"):
        eks_kubeconfig(REGION, "prod", None)
    assert fake.asked == ["/clusters/prod"]


@pytest.mark.parametrize("region", ["EU WEST", "eu_west_1", "https://eks"])
def test_a_region_that_cannot_be_one(keys: None, region: str) -> None:
    for ask in (eks_kubeconfig, eks_token):
        with pytest.raises(BadSpec, match=f"that is not the name of a region; write it as in eu-west-1.*{region}"):
            ask(region, "prod", None)


@pytest.mark.parametrize("name", ["", "../prod", "a b", "-prod", "p" * 101, "prod\n", CLUSTER_ARN])
def test_what_cannot_name_a_cluster(keys: None, name: str) -> None:
    for ask in (eks_kubeconfig, eks_token):
        with pytest.raises(BadSpec, match="is not the name of an EKS cluster: letters, digits, - and _, at most 100"):
            ask(REGION, name, None)


@pytest.mark.parametrize(
    "role", ["arn:aws:sts::123456789012:assumed-role/deployer/me", "arn:aws:iam::12:role/deployer", USER, "a role", "x\n"]
)
def test_what_cannot_name_a_role(keys: None, role: str) -> None:
    for ask in (eks_kubeconfig, eks_token):
        with pytest.raises(BadSpec, match="is not a role: give its name, or its ARN, arn:aws:iam::<account>:role/<name>"):
            ask(REGION, "prod", role)


def test_boto3_is_not_installed(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(InfraError, match=r"EKS needs boto3, .*: pip install 'infill\[kubernetes\]'"):
        eks_token(REGION, "prod", None)
