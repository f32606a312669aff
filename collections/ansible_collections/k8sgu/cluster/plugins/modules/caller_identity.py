#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: caller_identity
short_description: Say who calls AWS, and check the credentials
version_added: 0.1.0
description:
  - Returns the account, the ARN and the region that tasks with the same options work with.
  - Fails for the account's root user, see U(https://docs.aws.amazon.com/IAM/latest/UserGuide/root-user-best-practices.html).
  - Warns of an IAM user's access key that is older than O(max_key_age_days), if the caller may list its keys
    (C(iam:ListAccessKeys)), and of a file with credentials that other users of this machine can read.
extends_documentation_fragment:
  - k8sgu.cluster.aws
  - k8sgu.cluster.read_only
options:
  max_key_age_days:
    description:
      - Days after which an access key counts as old.
    type: int
    default: 90
  allow_root:
    description:
      - Accept the root user.
    type: bool
    default: false
author:
  - The k8sgu authors (@k8sgu)
"""

EXAMPLES = r"""
- name: Say who works on which account
  k8sgu.cluster.caller_identity:
  register: caller

- name: Show it
  ansible.builtin.debug:
    msg: "{{ caller.arn }} in {{ caller.region }}"
"""

RETURN = r"""
account:
  description: The account's number.
  returned: success
  type: str
  sample: "123456789012"
arn:
  description: Who calls.
  returned: success
  type: str
  sample: arn:aws:iam::123456789012:user/operator
user_id:
  description: The caller's unique id.
  returned: success
  type: str
  sample: AIDACKCEVSQ6C2EXAMPLE
region:
  description: The region.
  returned: success
  type: str
  sample: eu-central-1
endpoint_url:
  description: The address of EC2's API.
  returned: success
  type: str
  sample: https://ec2.eu-central-1.amazonaws.com
access_key_age_days:
  description: Days since a user's access key was made. Null for roles, and where the permission to look is missing.
  returned: success
  type: int
  sample: 12
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.caller_identity import MODULE
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import run_module


def main() -> None:
    run_module(MODULE)


if __name__ == "__main__":
    main()
