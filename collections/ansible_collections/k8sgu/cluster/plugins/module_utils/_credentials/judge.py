# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides which pods have not followed to other authorities or another key. Pure; standard library only."""

from __future__ import annotations

from typing import Collection, Iterable, NamedTuple, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._credentials.pem import PemError, fingerprints
from ansible_collections.k8sgu.cluster.plugins.module_utils._credentials.volumes import Token, Volume

SHOWN = 5
# So much of a fingerprint tells certificates apart.
_DIGITS = 16


class Lag(NamedTuple):
    """A file that a pod has not got anew; `never` if nobody renews it. `pod` is namespace/name, else the pod's UID."""

    pod: str
    volume: str
    file: str
    has: str
    never: bool = False


class Wanted(NamedTuple):
    """What every pod must have: fingerprints of authorities, ids of keys; empty is not looked at.

    `ignore` has pods that may have anything, by namespace/name or UID.
    """

    authorities: Collection[str] = ()
    key_ids: Collection[str] = ()
    ignore: Collection[str] = ()


class Judgement(NamedTuple):
    """The number of pods that were looked at, what lags, and the pods whose tokens have all expired."""

    pods: int
    lags: tuple[Lag, ...]
    expired: tuple[str, ...]


def judge(volumes: Sequence[Volume], wanted: Wanted, now: float) -> Judgement:
    """A token that has expired is not looked at, nor is the rest of a volume that has no other: what uses it has ended,
    or is refused by the API server whatever happens here.
    """
    names: dict[str, str] = {}
    for volume in volumes:
        for token in volume.tokens:
            if token.pod:
                names.setdefault(volume.uid, token.pod)
    pods, lags, expired = set(), [], set()
    for volume in volumes:
        pod = names.get(volume.uid, volume.uid)
        if pod in wanted.ignore or volume.uid in wanted.ignore:
            continue
        valid = [token for token in volume.tokens if token.expires is None or token.expires > now]
        if volume.tokens and not valid:
            expired.add(pod)
            continue
        pods.add(pod)
        lags += _of_volume(pod, volume, valid, wanted)
    return Judgement(len(pods), tuple(sorted(lags)), tuple(sorted(expired)))


def _of_volume(pod: str, volume: Volume, tokens: Iterable[Token], wanted: Wanted) -> list[Lag]:
    lags = []
    if wanted.authorities:
        for file, text in sorted(volume.authorities.items()):
            try:
                has, told = fingerprints(text), ""
            except PemError as error:
                has, told = frozenset(), str(error)
            # A volume without a token for the API server may have an authority of something else.
            if (volume.for_api or has & set(wanted.authorities)) and has != set(wanted.authorities):
                lags.append(Lag(pod, volume.name, file, told or f"has {shortened(has)}"))
    if wanted.key_ids:
        lags += [
            Lag(
                pod,
                volume.name,
                token.file,
                f"is signed by the key {token.kid}" if token.kid else "does not say by which key it is signed",
                token.expires is None,
            )
            for token in tokens
            if token.kid not in wanted.key_ids
        ]
    return lags


def shortened(fingerprints: Iterable[str]) -> str:
    return " and ".join(f"SHA-256 {value[:_DIGITS]}" for value in sorted(fingerprints))


def complaint(found: Judgement, wanted: Wanted, waited_s: float) -> str:
    """The error: which pods lag, what they have, what they should have, and the ways out."""
    lagging = list(dict.fromkeys(lag.pod for lag in found.lags))
    after = f" after {waited_s:g} s" if waited_s else ""
    lines = [f"{len(lagging)} of {found.pods} pods here do not have what they should{after}:"]
    for pod in lagging[:SHOWN]:
        lines += [f"  Pod {lag.pod}, volume {lag.volume}: {lag.file} {lag.has}" for lag in found.lags if lag.pod == pod]
    if len(lagging) > SHOWN:
        lines.append(f"  and {len(lagging) - SHOWN} more")
    names = {lag.file.rpartition("/")[2] for lag in found.lags}
    if "ca.crt" in names:
        lines.append(
            f"Each ca.crt should have exactly {shortened(wanted.authorities)}; the kubelet writes it within 90 s"
        )
    if names - {"ca.crt"}:
        lines.append(
            f"Each token should be signed by {' or '.join(sorted(wanted.key_ids))}; the kubelet keeps a token until "
            "four fifths of its life have passed, and asks for all of them anew when it is restarted"
        )
    if any(lag.never for lag in found.lags):
        lines.append(
            "A token that does not expire is a Secret's, and nobody renews it: delete that Secret and make it again"
        )
    first = lagging[0]
    namespace, _slash, name = first.partition("/")
    delete = f" (kubectl --namespace {namespace} delete pod {name})" if name else ""
    lines.append(
        f"See why the kubelet does not (journalctl --unit kubelet), or delete the pod{delete}, whose successor gets "
        f"them anew. A pod that terminates counts until it is gone; ignore: [{first}] leaves it out"
    )
    return "\n".join(lines)
