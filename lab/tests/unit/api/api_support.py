"""An API of the test's own process, and what its tests share."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from ec2lab.api import seed, server
from ec2lab.api.backends import SERVICES, get_backend
from ec2lab.api.backends import ec2 as ec2_backend

PUBLIC_RANGE = "198.18.4.0/22"
IMAGE_KEY = "unit-test-recipe"


@dataclass
class RunningApi:
    """An API of the test's own process, and clients of it."""

    api: server.Api
    url: str
    image_id: str
    state_file: Path
    credentials: seed.Credentials
    changes: list[int] = field(default_factory=list)

    def client(self, service: str, key: str = "", secret: str = "", token: str | None = None) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=server.REGION,
            aws_access_key_id=key or self.credentials.access_key_id,
            aws_secret_access_key=secret or self.credentials.secret_access_key,
            aws_session_token=token,
            config=Config(retries={"max_attempts": 1}),
        )

    def settle(self, instance_id: str, state: str) -> None:
        """What the daemon does when a machine has got there."""
        from ec2lab.api.patches import instances

        with self.api.lock:
            instance = ec2_backend().get_instance(instance_id)
            if state == "terminated":
                instances.finish_termination(instance)
            else:
                instances.set_state(instance, state)
            self.api.save()


def forget_everything() -> None:
    for service in SERVICES:
        backend = get_backend(service)
        for account in list(backend):
            del backend[account]


@dataclass
class Network:
    vpc: str
    subnet: str
    group: str


TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }
)


def statement(effect: str, actions: str | list[str], resources: str | list[str], **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": actions, "Resource": resources, **more}


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def assume(api: RunningApi, name: str, *statements: dict[str, Any], **more: Any) -> Any:
    """An S3 client of a role that has these statements; with none of them, of a role without a policy."""
    iam = api.client("iam")
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
    if statements:
        iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=document(*statements))
    held = api.client("sts").assume_role(RoleArn=role, RoleSessionName="i-0123456789abcdef0", **more)["Credentials"]
    return api.client("s3", held["AccessKeyId"], held["SecretAccessKey"], held["SessionToken"])
