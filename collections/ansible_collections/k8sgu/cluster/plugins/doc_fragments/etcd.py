# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of every module that asks etcd on a node; `_etcd/etcdctl.py` gives them their meaning."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  etcdctl:
    description: The program etcdctl.
    type: path
    default: /usr/local/bin/etcdctl
  environment:
    description: File with etcdctl's environment variables, its endpoints and client certificate among them.
    type: path
    default: /etc/etcd/etcdctl.env
"""
