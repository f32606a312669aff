# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries plans out: makes keys, signs, writes files."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Callable, Iterable, TypeVar

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import (
    backup_file,
    ensure_directory,
    finish_replace,
    remove_file,
    replace_together,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._files.present import present
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import keys, signing
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.authorities import Authorities
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.certificates import Certificate, facts_of
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.plan import Plan

_DIRECTORY_MODE, _KEY_MODE, _PUBLIC_MODE = 0o700, 0o600, 0o644

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass
class Made:
    """The result of a plan."""

    certificate: Certificate | None = None
    backups: list[str] = field(default_factory=list)


def finish_interrupted(directories: Iterable[str]) -> None:
    """Finish the file changes of killed runs in these directories."""
    for directory in directories:
        finish_replace(directory)


def apply(plans: list[Plan], authorities: Authorities) -> dict[str, Made]:
    """Carry out the plans, CAs first. Makes everything in memory, then replaces the files.

    Returns {path of the certificate: what was made}.
    """
    made = {plan.entry.certificate_path: Made(plan.current.certificate) for plan in plans}
    new_keys = _make_keys(plans)
    signed = _sign(plans, new_keys, authorities)
    files: dict[str, tuple[bytes, int]] = {}
    for plan in plans:
        entry, wanted = plan.entry, plan.entry.wanted
        if wanted is None:
            continue
        path = entry.certificate_path
        key = new_keys.get(path, plan.current.key)
        if plan.issue:
            files[path] = (signing.pem_of(signed[path].parsed), _PUBLIC_MODE)
            made[path].certificate = signed[path]
        if plan.write_key and key is not None:
            files[entry.key_path] = (keys.dump(key, wanted.passphrase), _KEY_MODE)
        if plan.write_csr:
            request = wanted.request
            if request.pem is not None:
                files[entry.csr_path] = (request.pem, _PUBLIC_MODE)
            elif key is not None:
                files[entry.csr_path] = (signing.make_request(request, key), _PUBLIC_MODE)
    for plan in plans:
        if plan.entry.backup:
            touched = [path for path in plan.entry.paths if path in files or path in plan.remove]
            made[plan.entry.certificate_path].backups = [copy for copy in map(backup_file, touched) if copy]
    for directory in {os.path.dirname(path) for path in files}:  # noqa: PTH120
        ensure_directory(directory, _DIRECTORY_MODE)
    replace_together(files)
    for plan in plans:
        for path in plan.close:
            os.chmod(path, _KEY_MODE if path == plan.entry.key_path else _PUBLIC_MODE)  # noqa: PTH101
        for path in plan.remove:
            remove_file(path)
    return made


def _make_keys(plans: list[Plan]) -> dict[str, keys.PrivateKey]:
    wanted = [
        (plan.entry.certificate_path, plan.entry.wanted.request.key)
        for plan in plans
        if plan.new_key and plan.entry.wanted is not None and plan.entry.wanted.request.key is not None
    ]
    # The largest first, so that a large one at the end does not leave the other cores idle.
    wanted.sort(key=lambda pair: (pair[1].algo == "rsa", pair[1].size), reverse=True)
    slow = sum(spec.algo == "rsa" for _path, spec in wanted) > 1
    made = _each(lambda pair: keys.generate(pair[1]), wanted, slow)
    return {path: key for (path, _spec), key in zip(wanted, made)}


def _sign(plans: list[Plan], new_keys: dict[str, keys.PrivateKey], authorities: Authorities) -> dict[str, Certificate]:
    """{path: certificate}; signs level by level, since a CA must exist before it signs."""
    signed: dict[str, Certificate] = {}
    left = [plan for plan in plans if plan.issue]

    def ready(plan: Plan) -> bool:
        wanted = present(plan.entry.wanted, "only what is wanted is issued")
        issuer = authorities.planned(wanted) if wanted.ca else None
        return issuer is None or not issuer.issue or issuer.entry.certificate_path in signed

    def own_key(plan: Plan) -> keys.PrivateKey | None:
        return new_keys.get(plan.entry.certificate_path, plan.current.key)

    def authority(plan: Plan) -> tuple[Certificate | None, keys.PrivateKey]:
        wanted = present(plan.entry.wanted, "only what is wanted is issued")
        if wanted.initca:
            certificate, key = None, own_key(plan)
        else:
            issuer = authorities.planned(wanted)
            if issuer is None:
                return authorities.certificate(plan.entry, wanted), authorities.key(plan.entry, wanted)
            certificate = signed.get(issuer.entry.certificate_path, issuer.current.certificate)
            key = own_key(issuer)
        if key is None:
            raise AssertionError("check_key has refused CAs without one")
        return certificate, key

    def by_rsa(plan: Plan) -> bool:
        spec = keys.spec_of(authority(plan)[1])
        return spec is not None and spec.algo == "rsa"

    def sign(plan: Plan) -> Certificate:
        wanted = present(plan.entry.wanted, "only what is wanted is issued")
        own = own_key(plan)
        public = own.public_key() if own is not None else _public_key(wanted.request.public_key)
        issuer, key = authority(plan)
        return facts_of(
            signing.make_certificate(wanted.template, public, issuer.parsed if issuer is not None else None, key)
        )

    while left:
        level = [plan for plan in left if ready(plan)]
        for plan, certificate in zip(level, _each(sign, level, slow=len(level) > 1 and any(map(by_rsa, level)))):
            signed[plan.entry.certificate_path] = certificate
        left = [plan for plan in left if plan not in level]
    return signed


def _public_key(der: bytes) -> keys.PublicKey:
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    return load_der_public_key(der)  # type: ignore[return-value]  # read_request lets through only ours


def _each(work: Callable[[_Item], _Result], items: list[_Item], slow: bool) -> list[_Result]:
    """Run `work` on every item; in threads if it is slow: RSA releases the GIL, ECDSA is too fast to gain from them."""
    if not slow:
        return [work(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return list(pool.map(work, items))
