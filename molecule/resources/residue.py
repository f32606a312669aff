"""Fails if anything of a lab is left on this machine, and says what: residue.py LAB."""

from __future__ import annotations

import sys

from ec2lab import residue

# The host's own packet filter, rules and settings are no lab's; others may change them meanwhile.
KINDS = ("process", "mount", "namespace", "interface", "route", "cgroup", "loop device")


def main(lab: str) -> int:
    seen = residue.snapshot(lab=lab)
    left = [f"{kind}: {entry}" for kind in KINDS for entry in sorted(seen[kind])]
    print("\n".join(left) or f"nothing of lab {lab} is left")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
