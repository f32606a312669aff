# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads kubeconfig files, merges entries by name, checks and writes them.

The format is https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/. Helpers raise ConfigError; only a module's
main turns it into fail_json.
"""
