# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter reload_copies."""

from __future__ import annotations

from typing import Any, Callable

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: reload_copies
short_description: Formats what gives a running program new copies of its keys as lines of its unit
version_added: 0.1.0
description:
  - For a program that reads its certificates anew. On disk only root can read the keys, so the unit copies them to
    C(/run/USER) for the user that the program runs as; these lines do so at a reload.
  - It takes a directory that only root can enter and one rename for each file, so that a half-written one is never
    seen, and that the user whom the old copies belong to cannot lead root elsewhere.
author:
  - The k8sgu authors (@k8sgu)
options:
  _input:
    description: Paths of the files, as they stand in a unit, on one line or on several that end with a backslash.
    type: str
    required: true
  user:
    description: Whom the copies belong to. Their directory below C(/run) has the same name.
    type: str
    required: true
seealso:
  - name: systemd.service
    description: C(ExecReload=), and what a plus sign before a command means.
    link: https://www.freedesktop.org/software/systemd/man/latest/systemd.service.html
"""

EXAMPLES = r"""
# In a template:
# {{ '/etc/etcd/pki/server.crt /etc/etcd/pki/server.key' | k8sgu.cluster.reload_copies('etcd') }}
"""

RETURN = r"""
_value:
  description: The lines, all of C(ExecReload=).
  type: str
"""


def reload_copies(paths: str, user: str) -> str:
    if not isinstance(paths, str) or not paths.strip():
        raise AnsibleFilterError(f"reload_copies takes the paths of files, not {paths!r}")
    return "\n".join(
        (
            f"ExecReload=+/usr/bin/install -d -m 0700 /run/{user}-new",
            f"ExecReload=+/usr/bin/install -o {user} -m 0400 -t /run/{user}-new \\\n  {paths.strip()}",
            f"ExecReload=+/bin/sh -c 'mv -f -t /run/{user} /run/{user}-new/* && rmdir /run/{user}-new'",
        )
    )


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"reload_copies": reload_copies}
