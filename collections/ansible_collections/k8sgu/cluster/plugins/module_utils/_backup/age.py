# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opens what is encrypted for keys in age's format, https://age-encryption.org/v1."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import IO, Any, Sequence

with contextlib.suppress(ImportError):  # libraries.require reports it before anything here is called
    import pyrage

# How pyrage says it, in an error that has no attribute.
_OTHER_KEY = "No matching keys found"


class AgeError(Exception):
    """There is no key, or the content cannot be opened; the text says why."""


class OtherKey(AgeError):
    """The content was encrypted for others."""


def identities(path: Path) -> list[Any]:
    """The private keys in a file such as age-keygen writes. Raises AgeError, OSError."""
    found = []
    for line in path.read_text(errors="replace").splitlines():
        with contextlib.suppress(pyrage.IdentityError):
            found.append(pyrage.x25519.Identity.from_str(line.strip()))
    if not found:
        raise AgeError(f"{path} has no line AGE-SECRET-KEY-1..., as age-keygen writes it")
    return found


def decrypt(sealed: IO[bytes], target: IO[bytes], keys: Sequence[Any]) -> None:
    """Writes the content to `target`, in pieces of which each is authentic. Raises AgeError, OtherKey, OSError."""
    try:
        pyrage.decrypt_io(sealed, target, keys)
    except pyrage.DecryptError as error:
        if str(error) == _OTHER_KEY:
            raise OtherKey("it was encrypted for other keys") from None
        raise AgeError(f"it is damaged, or no file of age ({' '.join(str(error).split())})") from None
    except OSError as error:
        # Of what is damaged behind the header, pyrage tells as an error of the system, without a number.
        if error.errno is not None:
            raise
        raise AgeError(f"it is damaged ({error})") from None
