# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Attributes of every module that always runs on the controller."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
notes:
  - Runs on the controller, as the user who runs Ansible, whatever host and user the task is for. No connection is made. The task's
    C(environment) counts.
attributes:
  async:
    description: Supports being used with the C(async) keyword.
    support: none
  platform:
    description: The controller.
    support: full
    platforms: posix
"""
