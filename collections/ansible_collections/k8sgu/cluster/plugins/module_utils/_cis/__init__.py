# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The CIS Kubernetes Benchmark against a cluster.

`node` is what a node shows (standard library only); `control_plane`, `etcd` and `worker` hold the items that judge it,
`policies` those that judge the API's objects; `report` makes a table of all. Numbers are those of the benchmark's
version 1.11 (https://www.cisecurity.org/benchmark/kubernetes), titles are in our own words.
"""
