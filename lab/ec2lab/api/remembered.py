"""What moto computes anew for every request, although it never differs: half of the time that a call takes.

`install` may be called more than once. Nothing that a caller sees changes.
"""

from __future__ import annotations

import functools
from typing import Any

import moto.backends
import moto.core.responses
import moto.kms.utils
from cryptography.hazmat.primitives.asymmetric import rsa
from moto.backends import list_of_moto_modules
from moto.core.utils import method_names_from_class


@functools.lru_cache(maxsize=1)
def _modules() -> tuple[str, ...]:
    """The directories in moto's own, by which it looks for the service of a request."""
    return tuple(list_of_moto_modules())


@functools.lru_cache(maxsize=None)
def _method_names(of: type) -> tuple[str, ...]:
    return tuple(method_names_from_class(of))


def forget() -> None:
    """For who gives a class of moto's another method, or takes it away."""
    _method_names.cache_clear()


class _Keys:
    """In place of the module `rsa`: the first encrypted volume makes a key for its account, which encrypts nothing."""

    @staticmethod
    @functools.lru_cache(maxsize=None)
    def generate_private_key(public_exponent: int, key_size: int) -> rsa.RSAPrivateKey:
        return rsa.generate_private_key(public_exponent, key_size)

    def __getattr__(self, name: str) -> Any:
        return getattr(rsa, name)


def install() -> None:
    moto.backends.list_of_moto_modules = _modules
    moto.core.responses.method_names_from_class = _method_names
    moto.kms.utils.rsa = _Keys()
