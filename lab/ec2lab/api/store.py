"""The API's state in one file, replaced atomically, so that it is whole whenever the daemon is killed.

moto keeps everything in Python objects that refer to each other across services, so they are pickled together. Only
this program reads and writes the file (mode 0600, in a directory of mode 0700).
"""

from __future__ import annotations

import importlib
import io
import marshal
import os
import pickle
import types
from collections import defaultdict
from pathlib import Path
from typing import Any

from ec2lab.api.backends import ACCOUNT, SERVICES, get_backend
from ec2lab.errors import LabError

FORMAT = 1


class StateError(LabError):
    """The state file cannot be used."""


def _rebuild_function(module: str, code: bytes, defaults: tuple[Any, ...] | None, cells: tuple[Any, ...]) -> Any:
    namespace = vars(importlib.import_module(module))
    closure = tuple(types.CellType(value) for value in cells)
    return types.FunctionType(marshal.loads(code), namespace, None, defaults, closure)  # noqa: S302 - our own file


def _rebuild_default_dict(kind: type[defaultdict[Any, Any]], factory: Any) -> Any:
    empty = kind.__new__(kind)
    empty.default_factory = factory
    return empty


class _Pickler(pickle.Pickler):
    """Also pickles lambdas, which moto uses as factories of defaultdicts, and subclasses of defaultdict."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, defaultdict) and type(obj) is not defaultdict:
            return _rebuild_default_dict, (type(obj), obj.default_factory), vars(obj), None, iter(obj.items())
        if isinstance(obj, types.FunctionType) and "<l" in obj.__qualname__:  # <locals>, <lambda>
            cells = tuple(cell.cell_contents for cell in obj.__closure__ or ())
            return _rebuild_function, (obj.__module__, marshal.dumps(obj.__code__), obj.__defaults__, cells)
        return NotImplemented


def dump(extra: dict[str, Any]) -> bytes:
    """The API's whole state and `extra`, pickled."""
    # moto's server also creates an account of its own, which nobody uses.
    backends = {
        service: {account: dict(regions) for account, regions in get_backend(service).items() if account == ACCOUNT}
        for service in SERVICES
    }
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=5).dump({"format": FORMAT, "backends": backends, "extra": extra})
    return buffer.getvalue()


def restore(data: bytes) -> dict[str, Any]:
    """Makes `data` (from `dump`) the API's state and returns the `extra` saved with it."""
    state: dict[str, Any] = pickle.loads(data)  # noqa: S301 - written by ourselves, readable by root alone
    if state["format"] != FORMAT:
        raise StateError(
            f"the lab's state has format {state['format']}, this ec2lab reads {FORMAT}; "
            "`ec2lab down` removes this lab with its state"
        )
    for service, accounts in state["backends"].items():
        backend = get_backend(service)
        for account in list(backend):
            if account not in accounts:
                del backend[account]
        for account, regions in accounts.items():
            current = backend[account]
            for region in list(current):
                if region not in regions:
                    del current[region]
            for region, value in regions.items():
                current[region] = value
    _share_names_of_buckets()
    extra: dict[str, Any] = state["extra"]
    return extra


def _share_names_of_buckets() -> None:
    """moto looks up whose bucket has a name in a table beside its backends, which is not part of the state."""
    backends = get_backend("s3")
    names: dict[str, tuple[str, str]] = backends.bucket_accounts
    for name in [name for name, (_partition, account) in names.items() if account == ACCOUNT]:
        del names[name]
    for partition, backend in backends[ACCOUNT].items():
        names.update(dict.fromkeys(backend.buckets, (partition, ACCOUNT)))


class Store:
    """The state on disk, and the bytes written last, which are restored when a call fails halfway."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last: bytes | None = None

    def load(self) -> dict[str, Any] | None:
        """Restores the saved state and returns its `extra`; None when nothing was ever saved."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            extra = restore(data)
        except StateError:
            raise
        except Exception as error:
            raise StateError(
                f"{self.path} cannot be read back ({type(error).__name__}: {error}); "
                "`ec2lab down` removes this lab with its state"
            ) from error
        self._last = data
        return extra

    def save(self, extra: dict[str, Any]) -> None:
        """Writes the state; returns once it is on the disk."""
        data = dump(extra)
        if data == self._last:
            return
        temporary = self.path.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self._last = data

    def roll_back(self) -> dict[str, Any] | None:
        """Restores what was saved last and returns its `extra`."""
        return restore(self._last) if self._last is not None else None
