# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs kubectl exec, logs and port-forward on a pod, through the API server to the kubelet and the runtime, and top.

It is the program that administrators use, so the checks prove what they will see. It reads the kubeconfig and the
environment (HTTPS_PROXY, NO_PROXY).
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import selectors
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from typing import IO, Iterator

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError

_TIMEOUT_S = 20.0
_END_TIMEOUT_S = 5.0
_SHOWN_BYTES = 300
_FORWARDED = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+) ")
# Ignore the user's own defaults and aliases (https://kubernetes.io/docs/reference/kubectl/kuberc/).
_NO_PREFERENCES = {"KUBECTL_KUBERC": "false"}


def find(program: str) -> str:
    """Path of the program, which may be a name on PATH. Raises KubernetesError if there is none."""
    path = shutil.which(program)
    if path is None:
        raise KubernetesError(
            f"kubectl: {program} is not there or cannot be run; run playbooks/client_tools.yml, or install kubectl"
        )
    return path


@dataclass(frozen=True)
class Kubectl:
    """`program` and `kubeconfig` are paths. Every method raises KubernetesError with kubectl's error."""

    program: str
    kubeconfig: str

    def run_in_pod(self, namespace: str, pod: str, *command: str) -> str:
        """The output of a command in the pod."""
        return self._run(namespace, "exec", pod, "--", *command)

    def logs(self, namespace: str, pod: str) -> str:
        """The first bytes that the pod wrote."""
        return self._run(namespace, "logs", pod, f"--limit-bytes={_SHOWN_BYTES}")

    def top_nodes(self) -> str:
        """What the nodes use, a line each."""
        return self._run("default", "top", "nodes", "--no-headers")

    def fetch(self, namespace: str, pod: str, port: int, path: str) -> str:
        """The pod's answer to an HTTP request at one of its ports."""
        with tempfile.TemporaryFile() as errors, self._forwarding(namespace, pod, port, errors) as local:
            connection = http.client.HTTPConnection("127.0.0.1", local, timeout=_TIMEOUT_S)
            with contextlib.closing(connection):
                try:
                    connection.request("GET", path)
                    return connection.getresponse().read(1 << 16).decode("utf-8", "replace")
                except (OSError, http.client.HTTPException) as error:
                    # Only kubectl knows why there is no answer.
                    said = _said(errors) or f"{type(error).__name__}: {error}"
                    raise KubernetesError(f"kubectl port-forward: {said}") from error

    def _command(self, namespace: str, *words: str) -> list[str]:
        return [self.program, f"--kubeconfig={self.kubeconfig}", f"--namespace={namespace}", *words]

    def _run(self, namespace: str, verb: str, *words: str) -> str:
        try:
            done = subprocess.run(
                self._command(namespace, verb, *words),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env={**os.environ, **_NO_PREFERENCES},
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise KubernetesError(f"kubectl {verb}: no answer within {_TIMEOUT_S:.0f} s") from error
        except OSError as error:
            raise KubernetesError(f"kubectl: {self.program} cannot be run: {error.strerror}") from error
        if done.returncode != 0:
            said = _shown(done.stderr) or f"it ended with status {done.returncode}"
            raise KubernetesError(f"kubectl {verb}: {said}")
        return done.stdout.decode("utf-8", "replace")

    @contextlib.contextmanager
    def _forwarding(self, namespace: str, pod: str, port: int, errors: IO[bytes]) -> Iterator[int]:
        """A free local port, which is forwarded to the pod's port meanwhile."""
        try:
            process = subprocess.Popen(
                self._command(namespace, "port-forward", "--address=127.0.0.1", pod, f":{port}"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **_NO_PREFERENCES},
            )
        except OSError as error:
            raise KubernetesError(f"kubectl: {self.program} cannot be run: {error.strerror}") from error
        with process:
            try:
                yield _local_port(process, errors)
            finally:
                process.terminate()
                try:
                    process.wait(_END_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    process.kill()


def _local_port(process: subprocess.Popen[bytes], errors: IO[bytes]) -> int:
    """The local port, as soon as kubectl prints that it listens."""
    if process.stdout is None:
        raise AssertionError("its output is a pipe")
    printed, deadline = b"", time.monotonic() + _TIMEOUT_S
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(max(deadline - time.monotonic(), 0)):
            part = os.read(process.stdout.fileno(), 1 << 12)
            printed += part
            found = _FORWARDED.search(printed)
            if found:
                return int(found.group(1))
            if not part:
                process.wait()
                raise KubernetesError(f"kubectl port-forward: {_said(errors) or f'it printed {printed!r}'}")
    raise KubernetesError(f"kubectl port-forward: it does not listen after {_TIMEOUT_S:.0f} s")


def _said(errors: IO[bytes]) -> str:
    errors.seek(0)
    return _shown(errors.read(1 << 16))


def _shown(text: bytes) -> str:
    return " ".join(text.decode("utf-8", "replace").split())[:_SHOWN_BYTES]
