# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter certificate_report."""

from __future__ import annotations

import datetime
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import CRYPTOGRAPHY, fault
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.expiry import report

DOCUMENTATION = r"""
name: certificate_report
short_description: Certificates sorted by the days they have left, with a table
version_added: 0.1.0
description:
  - Reads the certificates that M(k8sgu.cluster.certificate_scan) found on several hosts.
  - Needs the Python library cryptography on the controller.
author:
  - The k8sgu authors (@k8sgu)
options:
  _input:
    description: For each host name, the list RV(k8sgu.cluster.certificate_scan#module:certificates).
    type: dict
    required: true
  min_days:
    description: Certificates with fewer whole days left are also listed under C(below).
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: Show a table
  ansible.builtin.debug:
    msg: "{{ ({'localhost': scan.certificates} | k8sgu.cluster.certificate_report(min_days=60)).table }}"
"""

RETURN = r"""
_value:
  description:
    - C(certificates), a list of dictionaries with C(host), C(path), C(days_left), C(not_after), C(subject), C(issuer),
      C(is_ca), C(serial) and C(fingerprint_sha256), sorted by their end.
    - C(table), the same as lines of text, and C(below), those with fewer than O(min_days) left.
  type: dict
"""


def certificate_report(scans: Any, min_days: Any = 30) -> dict[str, Any]:
    missing = fault(CRYPTOGRAPHY)
    if missing:
        raise AnsibleFilterError(f"certificate_report: {missing}")
    try:
        days = int(min_days)
    except (TypeError, ValueError):
        raise AnsibleFilterError(f"min_days: {min_days} is not a number of days") from None
    return report(scans, days, datetime.datetime.now(datetime.timezone.utc))


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"certificate_report": certificate_report}
