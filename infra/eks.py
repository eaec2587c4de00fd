"""`K8sConfigMethod.EKS_AUTH`: a kubeconfig of an EKS cluster, and the tokens that it asks this Python for. No AWS CLI.

>>> config = eks_kubeconfig("eu-west-1", "prod", role="deployer")
>>> path = write_kubeconfig(config)

The kubeconfig holds no credential: kubectl, Pulumi and kr8s run ``python -m runner eks-token``, which signs one with whatever
AWS credentials it finds at that moment (environment, profile, SSO, instance or pod role).
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import BadSpec, InfraError, NotAllowed

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

EXEC_API = "client.authentication.k8s.io/v1"
TOKEN_PREFIX = "k8s-aws-v1."
CLUSTER_HEADER = "x-k8s-aws-id"
URL_SECONDS = 60
TOKEN_MINUTES = 14  # EKS takes one for 15; no client should send one that ends on its way
READY = ("ACTIVE", "UPDATING")  # a cluster serves while it is updated

_CLUSTER_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}")
_ROLE_NAME = re.compile(r"[\w+=,.@/-]+", re.ASCII)
_ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+", re.ASCII)
_DENIED = re.compile(r"User: (?P<who>\S+) is not authorized to perform: (?P<action>\S+)(?P<object_and_why>.*)", re.DOTALL)

_LOG_IN = "log in again (`aws sso login`), or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_NO_LOGIN = (NotAllowed, f"the login of this profile is missing or has expired; {_LOG_IN}")
_EXPIRED = (NotAllowed, f"the AWS credentials have expired; {_LOG_IN}")
_WRONG_KEY = (NotAllowed, f"AWS does not know these credentials, or the account has not enabled the region; {_LOG_IN}")
_WRONG_SECRET = (NotAllowed, "the secret key does not belong to the access key, or this machine's clock is wrong; correct it")
_UNREACHABLE = (InfraError, "no answer from AWS; check the spelling of the region, the network and the proxy settings")

# What AWS answers, by its error code.
_ANSWERS: dict[str, tuple[type[InfraError], str]] = {
    **dict.fromkeys(("ExpiredToken", "ExpiredTokenException", "RequestExpired"), _EXPIRED),
    **dict.fromkeys(("InvalidClientTokenId", "UnrecognizedClientException"), _WRONG_KEY),
    **dict.fromkeys(("SignatureDoesNotMatch", "InvalidSignatureException"), _WRONG_SECRET),
    "RegionDisabledException": (NotAllowed, "the account has not enabled STS in this region; enable it, or name another region"),
}

# What botocore raises before there is an answer, by the name of the class or of one of its bases.
_BEFORE_ANSWERS: dict[str, tuple[type[InfraError], str]] = {
    "NoCredentialsError": (NotAllowed, f"there are no AWS credentials here; {_LOG_IN}"),
    "PartialCredentialsError": (BadSpec, "the AWS credentials are incomplete; set both the access key and the secret key"),
    "ProfileNotFound": (BadSpec, "there is no such AWS profile; set AWS_PROFILE to one that is in ~/.aws/config, or unset it"),
    "CredentialRetrievalError": (NotAllowed, f"the AWS credentials cannot be fetched; correct the profile, or {_LOG_IN}"),
    "InvalidRegionError": (BadSpec, "that is not the name of a region; write it as in eu-west-1"),
    **dict.fromkeys(("SSOError", "LoginError", "TokenRetrievalError"), _NO_LOGIN),
    **dict.fromkeys(("ConnectionError", "HTTPClientError"), _UNREACHABLE),
}

_OPERATIONS = {"DescribeCluster": "eks:DescribeCluster", "AssumeRole": "sts:AssumeRole"}
_REMEDIES = {
    "eks:DescribeCluster": "let its IAM policy allow eks:DescribeCluster on the cluster, or name a role that is allowed to",
    "sts:AssumeRole": "the role must exist, its trust policy must name who assumes it, and the policy of who does must allow it",
}


def eks_kubeconfig(region: str | None, cluster_name: str, role: str | None = None) -> dict[str, Any]:
    """Describe an EKS cluster and return a kubeconfig for it.

    The context is named ``<region>-<account>-<cluster>[-<hash of the role>]``, as is the user; the cluster is without the hash.

    Args:
        region: AWS region; where None, that of AWS_REGION, AWS_DEFAULT_REGION or the profile.
        cluster_name: name of the EKS cluster.
        role: name or ARN of an IAM role to assume, for the description and in every token; a name is one of the caller's account.

    Returns:
        A kubeconfig without any credential: its user runs ``python -m runner eks-token`` with this Python.

    Raises:
        BadSpec: there is no region, no such cluster, or something given is not a name.
        NotAllowed: AWS refuses, or there are no credentials that it takes.
        InfraError: the cluster is not ready, or AWS cannot be reached.
    """
    session, role_arn = _login(region, cluster_name, role)
    return _kubeconfig(_describe(session, cluster_name), session.region_name, role_arn)


def write_kubeconfig(config: dict[str, Any], folder: str | Path | None = None) -> Path:
    """Write a kubeconfig for this user's eyes only and return its path; the same one gives the same bytes.

    Args:
        config: as `eks_kubeconfig` returns it; the file is named for its context.
        folder: where to write, made if missing; by default ``infill/kubeconfigs`` in XDG_CACHE_HOME or ``~/.cache``.

    Raises:
        InfraError: the folder cannot be written to.
    """
    import yaml

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = Path(folder or cache / "infill" / "kubeconfigs") / f"{config['current-context']}.yaml"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(path, yaml.safe_dump(config))
    except OSError as exc:
        raise InfraError(f"cannot write kubeconfig {path}: {exc.strerror}; name another folder, or set XDG_CACHE_HOME") from exc
    return path


def eks_token(region: str | None, cluster_name: str, role: str | None = None) -> dict[str, Any]:
    """Sign a token for an EKS cluster's API server. Asks AWS nothing, unless there is a role to assume.

    Args:
        region, cluster_name, role: as `eks_kubeconfig` takes them.

    Returns:
        An ExecCredential, as ``aws eks get-token`` prints it.

    Raises:
        InfraError: as `eks_kubeconfig`.
    """
    session, _ = _login(region, cluster_name, role)
    with _explained(f"cannot sign a token for EKS cluster {cluster_name!r} in {session.region_name}"):
        url = _presigned_identity(session, cluster_name)
    expires = datetime.now(UTC) + timedelta(minutes=TOKEN_MINUTES)
    return {
        "apiVersion": EXEC_API,
        "kind": "ExecCredential",
        "spec": {},
        "status": {
            "expirationTimestamp": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "token": TOKEN_PREFIX + base64.urlsafe_b64encode(url.encode()).decode().rstrip("="),
        },
    }


def _login(region: str | None, cluster_name: str, role: str | None) -> tuple[Any, str | None]:
    """A session of a region, as the role where there is one, and that role's ARN."""
    if not _CLUSTER_NAME.fullmatch(cluster_name):
        raise BadSpec(f"{cluster_name!r} is not the name of an EKS cluster: letters, digits, - and _, at most 100")
    session = _session(region)
    if not role:
        return session, None
    arn = _role_arn(session, role)
    with _explained(f"cannot assume role {arn}"):
        return _assume(session, arn), arn


def _session(region: str | None, **keys: str) -> Any:
    try:
        import boto3
        import botocore.session
    except ImportError as exc:
        raise InfraError(f"EKS needs boto3, which cannot be imported ({exc}): pip install 'infill[kubernetes]'") from exc
    core = botocore.session.get_session()
    core.set_config_variable("sts_regional_endpoints", "regional")  # API servers may refuse tokens of the global endpoint
    with _explained("cannot open an AWS session"):
        session = boto3.Session(botocore_session=core, region_name=region or os.environ.get("AWS_REGION") or None, **keys)
        if session.region_name:
            return session
    raise BadSpec("cannot open an AWS session: no region; give one, or set AWS_REGION, or a region in the AWS profile")


def _client(session: Any, service: str) -> Any:
    from botocore.config import Config

    return session.client(service, config=Config(connect_timeout=10, read_timeout=30))  # not a minute for each try


def _role_arn(session: Any, role: str) -> str:
    if _ROLE_ARN.fullmatch(role):
        return role
    if not _ROLE_NAME.fullmatch(role):
        raise BadSpec(f"{role!r} is not a role: give its name, or its ARN, arn:aws:iam::<account>:role/<name>")
    with _explained(f"cannot find out whose role {role!r} is"):
        caller = _client(session, "sts").get_caller_identity()
    partition, account = caller["Arn"].split(":")[1], caller["Account"]
    return f"arn:{partition}:iam::{account}:role/{role.lstrip('/')}"


def _assume(session: Any, role_arn: str) -> Any:
    keys = _client(session, "sts").assume_role(RoleArn=role_arn, RoleSessionName="infill")["Credentials"]
    return _session(
        session.region_name,
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    )


def _describe(session: Any, name: str) -> dict[str, Any]:
    """The cluster as EKS describes it, once it is known to be in service."""
    doing = f"cannot use EKS cluster {name!r} in {session.region_name}"
    with _explained(doing):
        client = _client(session, "eks")
        try:
            cluster: dict[str, Any] = client.describe_cluster(name=name)["cluster"]
        except client.exceptions.ResourceNotFoundException:
            raise BadSpec(f"{doing}: there is none of that name; {_others(client)}") from None
    if cluster["status"] not in READY:
        raise InfraError(f"{doing}: it is {cluster['status']}, not ACTIVE; run this again when it is, or name another cluster")
    return cluster


def _others(client: Any) -> str:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        names = sorted(name for page in client.get_paginator("list_clusters").paginate() for name in page["clusters"])
    except (BotoCoreError, ClientError):
        return "check name, region and account (they may not be listed with these credentials)"
    return f"there are {', '.join(names)}" if names else "there are no clusters at all; check region and account"


def _kubeconfig(cluster: dict[str, Any], region: str, role_arn: str | None) -> dict[str, Any]:
    account = cluster["arn"].split(":")[4]
    name = f"{region}-{account}-{cluster['name']}"
    context = f"{name}-{hashlib.sha256(role_arn.encode()).hexdigest()[:8]}" if role_arn else name
    arguments = ["-m", "runner", "eks-token", "--cluster", cluster["name"], "--region", region]
    command = {
        "apiVersion": EXEC_API,
        "command": sys.executable,
        "args": [*arguments, "--role", role_arn] if role_arn else arguments,
        "interactiveMode": "Never",
    }
    server = {"server": cluster["endpoint"], "certificate-authority-data": cluster["certificateAuthority"]["data"]}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": server}],
        "users": [{"name": context, "user": {"exec": command}}],
        "contexts": [{"name": context, "context": {"cluster": name, "user": context}}],
        "current-context": context,
    }


def _presigned_identity(session: Any, cluster_name: str) -> str:
    """The address at which STS says who signed it; the signature covers the cluster's name, so that no other takes it."""
    client = _client(session, "sts")
    client.meta.events.register(
        "before-sign.sts.GetCallerIdentity", lambda request, **_: request.headers.add_header(CLUSTER_HEADER, cluster_name)
    )
    return str(client.generate_presigned_url("get_caller_identity", ExpiresIn=URL_SECONDS, HttpMethod="GET"))


def _replace(path: Path, text: str) -> None:
    descriptor, new = tempfile.mkstemp(prefix=".", dir=path.parent)  # made 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    """Turn what AWS and botocore refuse into errors for people."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as exc:
        raise _of_answer(exc, doing) from exc
    except BotoCoreError as exc:
        raise _before_answer(exc, doing) from exc


def _of_answer(exc: ClientError, doing: str) -> InfraError:
    code, message = exc.response["Error"].get("Code", ""), exc.response["Error"].get("Message", "")
    if code in ("AccessDenied", "AccessDeniedException"):
        return NotAllowed(f"{doing}: {_denied(exc.operation_name, message)}")
    kind, what = _ANSWERS.get(code, (InfraError, f"AWS answered {code}"))
    return kind(f"{doing}: {what}. AWS: {message}")


def _denied(operation: str, message: str) -> str:
    found = _DENIED.search(message)
    action = found["action"] if found else _OPERATIONS.get(operation, operation)
    who_what = f"{found['who']} may not {action}{found['object_and_why']}" if found else f"the caller may not {action} ({message})"
    return f"{who_what}; {_REMEDIES.get(action, f'let its IAM policy allow {action}')}"


def _before_answer(exc: BotoCoreError, doing: str) -> InfraError:
    known = (_BEFORE_ANSWERS[base.__name__] for base in type(exc).__mro__ if base.__name__ in _BEFORE_ANSWERS)
    kind, what = next(known, (InfraError, "AWS cannot be asked"))
    return kind(f"{doing}: {what}. botocore: {exc}")
