# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What steps work with when they are carried out: clients, ids of what has been made, and ways of waiting."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Iterable, Mapping, TypeVar

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import session

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.instances import Instance

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
# How long EC2 and IAM may take to show everywhere what was just made.
CONSISTENCY_S = 120.0
# What EC2 answers while something that was made a moment ago is not known everywhere yet, or when it is gone.
# https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
NOT_FOUND = (
    "InvalidVpcID.NotFound",
    "InvalidVpcId.NotFound",
    "InvalidSubnetID.NotFound",
    "InvalidSubnetId.NotFound",
    "InvalidGroup.NotFound",
    "InvalidGroupId.NotFound",
    "InvalidRouteTableID.NotFound",
    "InvalidRouteTableId.NotFound",
    "InvalidInternetGatewayID.NotFound",
    "InvalidInternetGatewayId.NotFound",
    "InvalidGatewayID.NotFound",
    "InvalidAllocationID.NotFound",
    "InvalidInstanceID.NotFound",
)
# What EC2 answers while something that is being removed still holds on to it.
IN_USE = ("DependencyViolation", "InvalidGroup.InUse", "IncorrectState", "AuthFailure.InUse")

T = TypeVar("T")


class TimedOut(session.AwsError):
    """Something did not happen in time."""


class Context:
    def __init__(self, aws: session.Aws, cluster: str, ids: Mapping[str, str], timeout_s: float) -> None:
        self.aws = aws
        self.cluster = cluster
        self.timeout_s = timeout_s
        self.stopped = threading.Event()
        # The nodes that were waited for, by name.
        self.instances: dict[str, Instance] = {}
        self.addresses: dict[str, str] = {}  # public ones that this run allocated, by the reference of the Elastic IP
        # The ids of those that EC2 was told to end and did not refuse to.
        self.ended: set[str] = set()
        self._ids = dict(ids)
        self._lock = threading.Lock()

    @property
    def ec2(self) -> Any:
        return self.aws.client("ec2")

    @property
    def iam(self) -> Any:
        return self.aws.client("iam")

    @property
    def s3(self) -> Any:
        return self.aws.client("s3")

    @property
    def elbv2(self) -> Any:
        return self.aws.client("elbv2")

    def id(self, reference: str) -> str:
        """The id behind a reference ("subnet/public/eu-central-1a"), given or made by an earlier step."""
        with self._lock:
            return self._ids[reference]

    def public_ip(self, node: str) -> str:
        """Of a node that was waited for; empty for one without."""
        instance = self.instances.get(node)
        return instance.public_ip if instance else self.addresses.get(node, "")

    def know(self, reference: str, id: str) -> None:
        with self._lock:
            self._ids[reference] = id

    def until(self, what: str, probe: Callable[[], T | None], timeout_s: float | None = None) -> T:
        """Calls `probe` until it returns something other than None. Raises TimedOut, saying what was waited for."""
        limit = self.timeout_s if timeout_s is None else min(timeout_s, self.timeout_s)
        deadline = time.monotonic() + limit
        pause = FIRST_PAUSE_S
        while True:
            result = probe()
            if result is not None:
                return result
            if self.stopped.is_set():
                raise TimedOut(f"gave up waiting for {what}, since another step failed")
            if time.monotonic() + pause > deadline:
                raise TimedOut(
                    f"waited {limit:.0f} s for {what}, which did not happen; look at it in the account, or give a "
                    "longer wait_timeout"
                )
            self.stopped.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    def retry(
        self,
        what: str,
        call: Callable[[], T],
        codes: Iterable[str],
        timeout_s: float | None = None,
        also: Callable[[BaseException], bool] = lambda error: False,
    ) -> T:
        """Repeats a call while it fails with one of `codes`, which stand for "not yet". Raises every other error.

        `also` tells such an error where its code alone does not.
        """
        tolerated = frozenset(codes)
        last: list[BaseException] = []

        def probe() -> tuple[T] | None:
            try:
                return (call(),)
            except Exception as error:
                if session.error_code(error) not in tolerated and not also(error):
                    raise
                last[:] = [error]
                return None

        try:
            return self.until(what, probe, timeout_s)[0]
        except TimedOut as error:
            detail = f" ({last[0]})" if last else ""
            raise TimedOut(f"{error}{detail}") from error

    def when_known(
        self,
        what: str,
        call: Callable[[], T],
        codes: Iterable[str] = NOT_FOUND,
        also: Callable[[BaseException], bool] = lambda error: False,
    ) -> T:
        """Repeats a call while AWS does not know yet what it names (`codes`, `also`)."""
        return self.retry(f"{what} to be known", call, codes, CONSISTENCY_S, also)

    def gone(self, call: Callable[[], Any], codes: Iterable[str] = NOT_FOUND) -> None:
        """A removal, which is done too when the thing is not there any more (`codes`)."""
        try:
            call()
        except Exception as error:
            if session.error_code(error) not in frozenset(codes):
                raise

    def remove(
        self,
        what: str,
        call: Callable[[], Any],
        gone: Iterable[str] = NOT_FOUND,
        busy: Iterable[str] = IN_USE,
        timeout_s: float | None = None,
    ) -> None:
        """A removal that is repeated while others still hold on to the thing (`busy`); see `gone`."""
        self.retry(what, lambda: self.gone(call, gone), busy, timeout_s)
