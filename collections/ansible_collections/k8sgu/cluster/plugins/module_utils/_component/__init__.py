# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Components of a node: desired and current state as data, a pure plan between them, and its execution.

On the controller `prepare` turns the options into plain data (`model`). On the node, `node` reads the present state,
`plan` compares and `apply` carries the plan out. Standard library only, Python 3.8.
"""
