"""Properties of every request: the certificate is as requested, and it is made once."""

from __future__ import annotations

import ipaddress
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pki_support import make_ca, make_leaf

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import certificates, profiles
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.durations import format_duration, parse_duration
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.errors import PkiError
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.hosts import classify_host
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.requests import parse_request

# Deterministic and without a time limit for one example: the machine may be busy.
SETTINGS = settings(
    deadline=None, max_examples=40, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=40)
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
NAME = st.lists(LABEL, min_size=1, max_size=4).map(".".join).filter(lambda name: not name.replace(".", "").isdigit())
HOST = st.one_of(
    NAME,
    NAME.map(lambda name: f"*.{name}"),
    st.ip_addresses().map(str),
    NAME.map(lambda name: f"someone@{name}"),
    NAME.map(lambda name: f"https://{name}/path"),
)
NAMES = st.fixed_dictionaries(
    {}, optional={"C": st.sampled_from(("US", "DE")), "O": TEXT, "OU": TEXT, "L": TEXT, "ST": TEXT}
)
REQUEST = st.fixed_dictionaries(
    {"CN": TEXT},
    optional={
        "names": st.lists(NAMES, max_size=3),
        "hosts": st.lists(HOST, max_size=6),
        "key": st.sampled_from(
            ({"algo": "ecdsa", "size": 256}, {"algo": "ecdsa", "size": 384}, {"algo": "ed25519", "size": 256})
        ),
    },
)
USAGES = st.lists(
    st.sampled_from(
        sorted(
            (set(profiles.KEY_USAGES) | set(profiles.EXTENDED_KEY_USAGES))
            - {"cert sign", "encipher only", "decipher only"}
        )
    ),
    min_size=1,
    max_size=6,
)


@SETTINGS
@given(request=REQUEST, usages=USAGES)
def test_what_is_asked_for_is_made_and_made_once(request: dict[str, Any], usages: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        pki = Path(directory)
        make_ca(pki)
        options = {
            "csr": request,
            "config": {"signing": {"profiles": {"p": {"expiry": "100h", "usages": usages}}}},
            "profile": "p",
        }
        assert make_leaf(pki, **options)["issued"]
        made = certificates.read_certificate((pki / "web.pem").read_bytes())
        asked = parse_request(request, "csr")
        assert sorted(pair for one in made.subject for pair in one) == sorted(
            pair for one in asked.subject for pair in one
        )
        assert set(made.hosts) == set(asked.hosts)
        assert made.key == asked.key
        assert made.key_usages == {profiles.KEY_USAGES[usage] for usage in usages if usage in profiles.KEY_USAGES}
        assert set(made.extended_key_usages) == {
            profiles.EXTENDED_KEY_USAGES[usage] for usage in usages if usage in profiles.EXTENDED_KEY_USAGES
        }
        assert (made.not_after - made.not_before).total_seconds() == 100 * 3600
        assert not made.is_ca
        assert made.authority_key_id
        assert not make_leaf(pki, **options)["changed"]


@SETTINGS
@given(text=st.one_of(st.text(max_size=30), HOST))
def test_a_host_is_classified_or_refused_and_nothing_else(text: str) -> None:
    try:
        host = classify_host(text, "hosts")
    except PkiError:
        return
    if host.kind == "ip":
        assert str(ipaddress.ip_address(host.value)) == host.value
    else:
        assert host.value == text
    assert classify_host(host.value, "hosts") == host


@SETTINGS
@given(hours=st.integers(min_value=1, max_value=2562047))
def test_durations_are_written_as_they_are_read(hours: int) -> None:
    assert format_duration(parse_duration(f"{hours}h", "expiry")) == f"{hours}h"


@SETTINGS
@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(("CN", "names", "hosts", "key", "ca", "algo", "size", "O")), inner, max_size=4
            )
        ),
    )
)
def test_any_document_is_a_request_or_a_clear_error(document: Any) -> None:
    try:
        parse_request(document, "csr")
    except PkiError as error:
        assert error.option.startswith("csr")
