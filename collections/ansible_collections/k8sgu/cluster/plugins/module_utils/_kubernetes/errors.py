# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The error of this package."""

from __future__ import annotations


class KubernetesError(Exception):
    """Something that the user must correct; the text names the option or the object and says what to do."""
