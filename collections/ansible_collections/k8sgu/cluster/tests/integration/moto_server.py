# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""moto's server on loopback, in this process, which counts its calls and their time.

Clients of this process are answered without a connection (direct_calls), unless the tests want one.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import boto3
import direct_calls
import organization
from moto.ec2.responses import EC2Response
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import implied, session
from ec2lab.api import consistency, remembered, s3_calls, store
from ec2lab.api.consistency import Lag
from ec2lab.api.patches import bucket_requests

# A lab's only image is its own, and its modules say so to moto; here moto's images are there.
os.environ.pop("MOTO_EC2_LOAD_DEFAULT_AMIS", None)

REGION = "us-east-1"
IMAGE = "ami-03cf127a"
# Calls of which moto carries out a DryRun; EC2 has it for all.
WITHOUT_DRY_RUN = ("create_nat_gateway", "create_route_table", "create_subnet", "create_vpc")


@dataclass
class Server:
    """The API's address, its calls, and the seconds that it spent on them."""

    url: str = ""
    calls: list[str] = field(default_factory=list)
    seconds: float = 0.0
    # The actions that the caller may use, for what calls imply; None: moto alone decides.
    allowed: list[str] | None = None
    # The actions that callers were checked for while `allowed` was set.
    checked: set[str] = field(default_factory=set)
    # The policy of an organization that the account is in.
    organization: dict[str, Any] | None = None
    # How far AWS is behind its own changes; not at all unless `lag.calls` says so.
    lag: Lag = field(default_factory=Lag)
    # Images that their owner, who is not this account, has deprecated.
    deprecated: set[str] = field(default_factory=set)
    # moto's backends are not safe between threads; EC2 is.
    one_at_a_time: threading.Lock = field(default_factory=threading.Lock)
    clients: dict[tuple[str, str], Any] = field(default_factory=dict)

    def client(self, service: str, region: str = REGION) -> Any:
        """Kept, since making one takes longer than most calls."""
        if (service, region) not in self.clients:
            self.clients[service, region] = boto3.client(
                service, region, endpoint_url=self.url, aws_access_key_id="testing", aws_secret_access_key="testing"
            )
        return self.clients[service, region]

    def saved(self) -> bytes:
        """The account as it is, for `restore`."""
        with self.one_at_a_time:
            return store.dump({})

    def restore(self, account: bytes) -> None:
        with self.one_at_a_time:
            store.restore(account)

    def environment(self) -> dict[str, str]:
        """The caller's environment for a program that uses only this server."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "EC2LAB_", "K8SGU_"))}
        return {
            **kept,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def signed_service(environ: dict[str, Any]) -> str:
    """The service that a request is signed for ("elasticloadbalancing")."""
    scope = str(environ.get("HTTP_AUTHORIZATION", "")).partition("Credential=")[2].partition(",")[0].split("/")
    return scope[3] if len(scope) > 3 else ""


@contextlib.contextmanager
def every_dry_run() -> Iterator[None]:
    """moto with DryRun for the calls without it."""
    before = {name: getattr(EC2Response, name) for name in WITHOUT_DRY_RUN}

    def checked(call: Any) -> Any:
        def answer(self: Any) -> Any:
            self.error_on_dryrun()
            return call(self)

        return answer

    for name, call in before.items():
        setattr(EC2Response, name, checked(call))
    try:
        yield
    finally:
        for name in before:
            delattr(EC2Response, name)


@contextlib.contextmanager
def deprecation(state: Server) -> Iterator[None]:
    """DescribeImages without the deprecated ones, unless they are asked for.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ami-deprecate.html
    """
    describe = EC2Response.describe_images

    def answer(self: Any) -> Any:
        found = describe(self)
        if not self._get_param("ImageIds", []) and not self._get_bool_param("IncludeDeprecated"):
            found.result["Images"] = [image for image in found.result["Images"] if image.id not in state.deprecated]
        for image in found.result["Images"]:
            image.deprecation_time = "2026-03-01T00:00:00.000Z" if image.id in state.deprecated else None
        return found

    EC2Response.describe_images = answer
    try:
        yield
    finally:
        del EC2Response.describe_images


@contextlib.contextmanager
def moto_server(direct: bool = True) -> Iterator[Server]:
    """`direct`: whether clients of this process are answered without a connection."""
    with every_dry_run(), _serving(direct) as state, deprecation(state):
        yield state


@contextlib.contextmanager
def _serving(direct: bool) -> Iterator[Server]:
    state = Server()
    remembered.install()
    bucket_requests.install()
    application = DomainDispatcherApplication(create_backend_app)

    def counted(environ: dict[str, Any], start_response: Any) -> Any:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        parameters = dict(parse_qsl(body.decode("latin-1"), keep_blank_values=True))
        if state.organization:
            resource = organization.denied(state.organization, parameters)
            if resource:
                start_response("403 Forbidden", [("Content-Type", "text/xml")])
                return [organization.refusal(parameters, resource)]
        service = signed_service(environ)
        if service == "s3":
            name, parameters = s3_calls.call(environ, body)
            parameters["Action"] = name
        if state.allowed is not None:
            call = f"{service}:{parameters.get('Action', '')}"
            if service == "s3":
                call = session.s3_action(parameters["Action"])
            needed = [action for row in implied.of(call, parameters) for action in row.actions]
            # Some services name the action in a header.
            target = str(environ.get("HTTP_X_AMZ_TARGET", "")).rpartition(".")[2]
            state.checked |= {f"{service}:{target}" if target else call, *needed}
            missing = [action for action in needed if action not in state.allowed]
            if missing:
                start_response("403 Forbidden", [("Content-Type", "text/xml")])
                code = "UnauthorizedOperation" if service == "ec2" else "AccessDenied"
                message = f"User: caller is not authorized to perform: {missing[0]} on resource: *"
                return [consistency.document(service, consistency.Refusal(code, message))]
        with state.one_at_a_time:
            refused = state.lag.refusal(service, parameters.get("Action", ""), parameters)
            if refused:
                start_response(refused.status, [("Content-Type", "text/xml")])
                return [consistency.document(service, refused)]
            started = time.perf_counter()
            state.calls += [parameters["Action"]] if service == "s3" else []
            for pair in body.decode("latin-1").split("&"):
                if pair.startswith("Action="):
                    state.calls.append(pair[len("Action=") :])
            try:
                if not state.lag.calls:
                    return list(application(environ, start_response))
                return _lagging(state.lag, service, parameters, environ, start_response)
            finally:
                state.seconds += time.perf_counter() - started

    def _lagging(
        lag: Lag, service: str, parameters: dict[str, str], environ: dict[str, Any], start_response: Any
    ) -> list[bytes]:
        started: list[Any] = []
        parts = application(environ, lambda status, headers, _exc=None: started.extend((status, headers)))
        body, (status, headers) = b"".join(parts), started
        if status.startswith("200"):
            body = lag.answered(service, parameters.get("Action", ""), parameters, body)
        headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, counted, threaded=True)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    if direct:
        direct_calls.serve(state.url, counted)
    try:
        # Its backends belong to this process and still have the objects of an earlier server.
        reset(state)
        state.client("sts").get_caller_identity()
        yield state
    finally:
        direct_calls.end(state.url)
        server.shutdown()
        thread.join()


def reset(server: Server) -> None:
    """Resets the account to its initial state."""
    server.organization, server.deprecated, server.lag, server.allowed = None, set(), Lag(), None
    request = urllib.request.Request(f"{server.url}/moto-api/reset", method="POST")
    with urllib.request.urlopen(request, timeout=60):
        pass


def launch(ec2: Any, names: list[str | None], cluster: str = "demo", **tags: str) -> list[str]:
    """Instances of a cluster, one for each name (None: without a Name tag); their ids."""
    ids = []
    for name in names:
        own = {f"k8sgu.io/cluster/{cluster}": "owned", "k8sgu.io/role": "worker", "k8sgu.io/pool": "workers", **tags}
        if name is not None:
            own["Name"] = name
        answer = ec2.run_instances(
            ImageId=IMAGE,
            InstanceType="m5.large",
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[
                {"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in own.items()]}
            ],
        )
        ids.append(answer["Instances"][0]["InstanceId"])
    return ids
