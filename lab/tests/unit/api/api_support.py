"""An API of the test's own process, and what its tests share."""

from __future__ import annotations

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
