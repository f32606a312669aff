# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of every module that calls the AWS API; `_ec2/session.py` gives them their meaning."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  region:
    description:
      - The AWS region. Without it the environment's (E(AWS_REGION), E(AWS_DEFAULT_REGION)) or the profile's.
    type: str
  profile:
    description:
      - A profile of the AWS configuration files. Ignored where O(access_key) is given.
    type: str
  endpoint_url:
    description:
      - Another address of the API, for example the lab's. Without it E(AWS_ENDPOINT_URL) or Amazon's own.
    type: str
  access_key:
    description:
      - An access key's id. Better left out, so that boto3 finds credentials itself (environment, profile, single
        sign-on, instance role).
    type: str
  secret_key:
    description:
      - The access key's secret; goes with O(access_key).
    type: str
  session_token:
    description:
      - The token of temporary credentials; goes with O(access_key).
    type: str
  assume_role_arn:
    description:
      - A role to assume before anything else. Its credentials renew themselves during a long run.
    type: str
  assume_role_external_id:
    description:
      - The external id that the role's trust policy asks for.
    type: str
  retry_mode:
    description:
      - How boto3 retries what was throttled or failed on the way, see
        U(https://boto3.amazonaws.com/v1/documentation/api/latest/guide/retries.html).
    type: str
    choices: [legacy, standard, adaptive]
    default: standard
  max_attempts:
    description:
      - How often a call is tried at most, the first time included.
    type: int
    default: 8
  connect_timeout:
    description:
      - Seconds to wait for a connection to the API.
    type: int
    default: 10
  read_timeout:
    description:
      - Seconds to wait for an answer of the API.
    type: int
    default: 60
requirements:
  - boto3 >= 1.34
"""
