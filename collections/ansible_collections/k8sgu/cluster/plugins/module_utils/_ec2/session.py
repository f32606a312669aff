# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sessions and clients of the AWS API, and what its errors mean to the user.

Credentials, regions, endpoints, retries and timeouts of every module and plugin of the collection are dealt with here.
Credentials follow boto3's chain (environment, profile, SSO, container, instance role):
https://boto3.amazonaws.com/v1/documentation/api/latest/guide/credentials.html
"""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass, fields
from typing import Any, Mapping, cast

try:
    import boto3
    import botocore.exceptions
    from botocore.config import Config
    from botocore.credentials import DeferredRefreshableCredentials
    from botocore.session import get_session
except ImportError:
    pass  # libraries.require reports it before anything here is called

USER_AGENT = "k8sgu"

# Codes that mean "no valid credentials" and those that mean "valid, but not allowed to".
EXPIRED_CODES = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
INVALID_CODES = frozenset(
    {
        "AuthFailure",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
        "InvalidAccessKeyId",
    }
)
# 403 stands for a denial whose body is not of the service's protocol, as a proxy or an emulator may answer.
DENIED_CODES = frozenset(
    {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "Client.UnauthorizedOperation", "403"}
)


class AwsError(Exception):
    """A failure of the API or on the way to it, in words for the user: what was tried, why it failed, what helps."""


@dataclass(frozen=True)
class Connection:
    """How to reach the API. Each field is the option of its name; None leaves the choice to boto3's chain."""

    profile: str | None = None
    region: str | None = None
    endpoint_url: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    session_token: str | None = None
    assume_role_arn: str | None = None
    assume_role_external_id: str | None = None
    retry_mode: str = "standard"
    max_attempts: int = 8
    connect_timeout: int = 10
    read_timeout: int = 60

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Connection:
        """Takes the options named like the fields. What is missing, None or empty keeps its default."""
        given = {field.name: options.get(field.name) for field in fields(cls)}
        return cls(**{name: value for name, value in given.items() if value not in (None, "")})


class Aws:
    """Clients for one connection, made once for each service and region; safe to use from several threads.

    boto3's clients may be shared between threads, its sessions may not:
    https://boto3.amazonaws.com/v1/documentation/api/latest/guide/clients.html#multithreading-or-multiprocessing-with-clients
    """

    def __init__(self, connection: Connection, max_connections: int = 16) -> None:
        self.connection = connection
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str | None], Any] = {}
        # The names of the calls made ("ec2:DescribeVpcs"), without retries.
        self.calls: list[str] = []
        self._config = Config(
            retries=cast("Any", {"mode": connection.retry_mode, "total_max_attempts": connection.max_attempts}),
            connect_timeout=connection.connect_timeout,
            read_timeout=connection.read_timeout,
            max_pool_connections=max_connections,
            user_agent_extra=USER_AGENT,
        )
        # Any: the stubs know one overload for each service's literal name, and the name is an argument here.
        self._session: Any = self._make_session()
        self.region = self._session.region_name
        if not self.region:
            raise AwsError("region: not given, and neither AWS_REGION nor the profile names one; set region")
        known = {
            name
            for partition in self._session.get_available_partitions()
            for name in self._session.get_available_regions("ec2", partition)
        }
        if self.region not in known:
            raise AwsError(
                f"region: {self.region!r} is not a region of AWS known to this boto3 ({boto3.__version__}); "
                "check the spelling, or install a newer boto3"
            )

    @property
    def partition(self) -> str:
        """The part of AWS that the region is in ("aws", "aws-cn")."""
        return str(self._session.get_partition_for_region(self.region))

    def client(self, service: str, region: str | None = None) -> Any:
        """The client of a service ("ec2", "elbv2", "iam", "sts"), in `region` or in the connection's own."""
        key = (service, region)
        with self._lock:
            if key not in self._clients:
                try:
                    client = self._session.client(
                        service,
                        region_name=region or self.region,
                        endpoint_url=self.connection.endpoint_url,
                        config=self._config,
                    )
                    client.meta.events.register_first("before-call", self._count)
                    self._clients[key] = client
                except (botocore.exceptions.BotoCoreError, ValueError) as error:
                    raise AwsError(explain(error, f"make a client of {service}")) from error
            return self._clients[key]

    def _count(self, model: Any, **_event: Any) -> None:
        self.calls.append(f"{model.service_model.service_name}:{model.name}")

    def _make_session(self) -> boto3.session.Session:
        wanted = self.connection
        if bool(wanted.access_key) != bool(wanted.secret_key):
            missing = "secret_key" if wanted.access_key else "access_key"
            raise AwsError(
                f"{missing}: access_key and secret_key go together; give both, or neither to use boto3's chain"
            )
        try:
            session = boto3.session.Session(
                aws_access_key_id=wanted.access_key,
                aws_secret_access_key=wanted.secret_key,
                aws_session_token=wanted.session_token,
                # boto3 reads only AWS_DEFAULT_REGION; every other AWS tool looks at AWS_REGION first.
                region_name=wanted.region or os.environ.get("AWS_REGION") or None,
                profile_name=None if wanted.access_key else wanted.profile,
            )
            return self._assumed(session) if wanted.assume_role_arn else session
        except botocore.exceptions.BotoCoreError as error:
            raise AwsError(explain(error, "open a session")) from error

    def _assumed(self, base: boto3.session.Session) -> boto3.session.Session:
        """A session of the role, whose credentials renew themselves during a long run."""
        wanted = self.connection
        sts = base.client("sts", endpoint_url=wanted.endpoint_url, config=self._config)
        request: dict[str, Any] = {"RoleArn": wanted.assume_role_arn, "RoleSessionName": USER_AGENT}
        if wanted.assume_role_external_id:
            request["ExternalId"] = wanted.assume_role_external_id

        def fetch() -> dict[str, str]:
            try:
                answer = sts.assume_role(**request)["Credentials"]
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
                raise AwsError(explain(error, f"assume_role_arn: assume {wanted.assume_role_arn}")) from error
            return {
                "access_key": answer["AccessKeyId"],
                "secret_key": answer["SecretAccessKey"],
                "token": answer["SessionToken"],
                "expiry_time": answer["Expiration"].isoformat(),
            }

        inner: Any = get_session()
        # botocore has no public way to give a session credentials that renew themselves.
        inner._credentials = DeferredRefreshableCredentials(refresh_using=fetch, method="sts-assume-role")
        return boto3.session.Session(botocore_session=inner, region_name=base.region_name)


def error_code(error: BaseException) -> str:
    """The API's error code ("InvalidGroup.NotFound"), or an empty string for an error that did not come from it."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def explain(error: BaseException, doing: str) -> str:
    """One sentence for the user: what failed, why, and which option or step helps.

    It holds no secret: botocore's messages name key ids at most.
    """
    if isinstance(error, AwsError):
        return str(error)
    code = error_code(error)
    kind = type(error).__name__
    if kind in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"):
        return (
            f"cannot {doing}: no credentials ({error}); set AWS_PROFILE or profile, AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, run `aws sso login`, or run on an instance with a role"
        )
    if kind in ("SSOTokenLoadError", "UnauthorizedSSOTokenError", "TokenRetrievalError", "SSOError"):
        return f"cannot {doing}: the single sign-on session is missing or has expired ({error}); run `aws sso login`"
    if kind == "ProfileNotFound":
        return f"profile: {error}; `aws configure list-profiles` shows the profiles there are"
    if kind == "NoRegionError":
        return f"region: cannot {doing} without a region; set region or AWS_REGION"
    if kind in (
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "ReadTimeoutError",
        "ConnectionClosedError",
    ):
        return f"cannot {doing}: {error}; check the network, region and endpoint_url"
    if kind == "ProxyConnectionError":  # its message masks a password
        return f"cannot {doing}: {error}; check HTTP_PROXY and HTTPS_PROXY, or name the API's host in NO_PROXY"
    if code in EXPIRED_CODES:
        return f"cannot {doing}: the credentials have expired ({code}); renew them, for example with `aws sso login`"
    if code in INVALID_CODES:
        return f"cannot {doing}: AWS does not accept the credentials ({code}: {message(error)}); check the access key"
    if code in DENIED_CODES or "AccessDenied" in code:
        return (
            f"cannot {doing}: the permission {denied_action(error)} is missing ({message(error)}); "
            "the module's return value and documentation give the policy that a caller needs"
        )
    if code:
        return f"cannot {doing}: {getattr(error, 'operation_name', 'the API')} answered {code}: {message(error)}"
    return f"cannot {doing}: {kind}: {error}"


def message(error: BaseException) -> str:
    """The API's message, without the code."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Message", error)).strip().rstrip(".")


# The service's prefix in a policy is not in the error, but follows from the operation.
_PREFIXES = (
    (("Role", "InstanceProfile"), "iam"),
    (("LoadBalancer", "TargetGroup", "Listener", "TargetHealth"), "elasticloadbalancing"),
    (("CallerIdentity", "AssumeRole"), "sts"),
    (("ServiceQuota",), "servicequotas"),
    (("Bucket", "PublicAccessBlock", "Object", "MultipartUpload", "UploadPart"), "s3"),
)
# S3's actions whose names are not those of the calls.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
_S3_ACTIONS = {
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "ListObjectsV2": "ListBucket",
    "HeadObject": "GetObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
}


def denied_action(error: BaseException) -> str:
    """The action in the form that a policy has it ("ec2:RunInstances")."""
    operation = str(getattr(error, "operation_name", ""))
    # A call may lack the permission for an action that it implies, such as iam:PassRole.
    named = re.search(r"not authorized to perform:? ([a-z0-9-]+:[A-Za-z]+)", message(error))
    if named:
        return named.group(1)
    for marks, prefix in _PREFIXES:
        # AssociateIamInstanceProfile and its kin are calls of EC2.
        if any(mark in operation for mark in marks) and "IamInstanceProfile" not in operation:
            return s3_action(operation) if prefix == "s3" else f"{prefix}:{operation}"
    return f"ec2:{operation}"


def s3_action(operation: str) -> str:
    """The action that a call of S3 needs."""
    return f"s3:{_S3_ACTIONS.get(operation, operation)}"
