# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that the cryptography library is there and new enough."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.versions import numbers

OLDEST = 42  # the first with time-zone-aware times


def require(module: AnsibleModule) -> None:
    """End the module if the library is missing or too old."""
    try:
        import cryptography
    except ImportError as error:
        module.fail_json(msg=missing_required_lib(f"cryptography >= {OLDEST}"), exception=repr(error))
    if not usable():
        version = cryptography.__version__
        module.fail_json(msg=f"cryptography {version} is too old for this module; install cryptography >= {OLDEST}")


def usable() -> bool:
    """Whether the library is there and new enough."""
    try:
        import cryptography
    except ImportError:
        return False
    return numbers(cryptography.__version__)[0] >= OLDEST
