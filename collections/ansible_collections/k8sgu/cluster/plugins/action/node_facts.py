# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""k8sgu.cluster.node_facts: the module, with its own files in memory."""

from __future__ import annotations

from ansible_collections.k8sgu.cluster.plugins.plugin_utils._in_memory import InMemoryAction


class ActionModule(InMemoryAction):
    """See the documentation of the module."""
