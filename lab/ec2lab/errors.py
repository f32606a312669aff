"""The lab's own errors: each message is one sentence for the user, with the way out."""

from __future__ import annotations


class LabError(Exception):
    """Something the user can act upon; the CLI prints it and ends with status 1."""


class HostUnfit(LabError):
    """The host lacks a program or a kernel feature, or refused an operation that the lab needs."""


class Timeout(LabError):
    """Something was waited for in vain; the message says what and how long."""
