"""The lab's own errors: each message is one sentence that tells the user what is wrong and what to do."""

from __future__ import annotations


class LabError(Exception):
    """Something that the user can fix; the CLI prints it and exits with status 1."""


class HostUnfit(LabError):
    """The host lacks a program or a kernel feature, or refused an operation that the lab needs."""


class NoCapacity(LabError):
    """The host has not what a machine needs: what EC2 calls insufficient instance capacity."""


class Timeout(LabError):
    """A wait took too long; the message says what was waited for and how long."""


class Busy(LabError):
    """Something is in use and has to be let go first; the same call is worth another try."""
