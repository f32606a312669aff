# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a cluster against the CIS Kubernetes Benchmark.

`node` reads a node (standard library only); `control_plane`, `etcd` and `worker` have the items that judge it,
`policies` those that judge the API's objects, `project_items` our own beyond the benchmark; `report` makes the table.
Numbers are those of the benchmark's version 1.12 (https://www.cisecurity.org/benchmark/kubernetes), titles are ours.
Version 1.11 has the same numbers up to 5.2.8; 1.12 dropped its 5.2.9, so later ones are lower by one.
"""
