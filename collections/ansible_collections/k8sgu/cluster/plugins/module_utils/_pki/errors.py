# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The error that names the option to change."""

from __future__ import annotations


class PkiError(Exception):
    """A request that cannot be fulfilled; `option` is the option to change, the message says how."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(f"{option}: {message}" if option else message)
        self.option = option
        self.message = message

    def under(self, prefix: str) -> PkiError:
        """The same error of an entry in a list, such as `certificates[3] (web)`."""
        return PkiError(f"{prefix}.{self.option}" if self.option else prefix, self.message)
