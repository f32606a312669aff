# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The CIS Kubernetes Benchmark against a cluster.

`node` is what a node shows (standard library only); `control_plane`, `etcd` and `worker` hold the items that judge it,
`policies` those that judge the API's objects, `own` what we ask for beyond it; `report` makes a table of all. Numbers
are those of the benchmark's version 1.12 (https://www.cisecurity.org/benchmark/kubernetes), titles in our own words.
Up to 5.2.8 version 1.11 has the same; 1.12 dropped its 5.2.9, and what followed has one less.
"""
