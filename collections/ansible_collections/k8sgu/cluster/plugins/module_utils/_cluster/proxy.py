# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proxy of nodes, `k8sgu_proxy`: checks the option and derives the settings of nodes.

No message contains the address, which may contain a password.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Mapping, Sequence
from urllib.parse import urlsplit

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import proxy_rules

OPTION = "k8sgu_proxy"
WAY_OUT = "give http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT with what is not a letter or digit as %XX"
# RFC 3986's characters of a user, a password and a host, without those that are special in apt's and systemd's files.
_URL = re.compile(r"[A-Za-z0-9._~!$&()*+,=:@%\[\]/-]+")
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(\*?\.)?{_LABEL}(\.{_LABEL})*\.?")
# Never through a proxy: the node itself, the link-local services of EC2 (and of the lab), the VPC's own names.
_ALWAYS = ("localhost", "127.0.0.0/8", "169.254.0.0/16", ".internal", ".svc")


def problems(given: Mapping[str, Any]) -> list[str]:
    """What is wrong with the option, and what to do; empty if it can be used."""
    if not isinstance(given, Mapping):
        return [f"{OPTION}: is not a dictionary; give {{http: http://HOST:PORT}}"]
    found = []
    for kind in ("http", "https"):
        if given.get(kind):
            found += [f"{OPTION}.{kind}: {fault}; {WAY_OUT}" for fault in _faults(str(given[kind]))]
    exceptions = [str(one) for one in given.get("no_proxy") or []]
    if exceptions and not any(given.get(kind) for kind in ("http", "https")):
        found.append(f"{OPTION}.no_proxy: there is no proxy to except from; give http or https, or leave it out")
    for entry in exceptions:
        fault = _exception_fault(entry)
        if fault:
            found.append(f"{OPTION}.no_proxy: {entry!r} {fault}; give a host, .DOMAIN, an address or a range")
    return found


def _faults(url: str) -> list[str]:
    if "://" not in url:
        return ["has no scheme"]
    if not _URL.fullmatch(url):
        return ["has a character that addresses cannot have"]
    if re.search(r"%(?![0-9A-Fa-f]{2})", url):
        return ["has a % that is not followed by two hexadecimal digits"]
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ["is not an address, or its port is not a number up to 65535"]
    faults = []
    if parts.scheme != "http":
        faults.append(f"its scheme is {parts.scheme}, and its users speak only plain HTTP to a proxy")
    if not host or not (_NAME.fullmatch(host) or proxy_rules.address(host)):
        faults.append("names no host")
    if port is None or port == 0:
        faults.append("names no port")
    if parts.path not in ("", "/"):
        faults.append("has a path")
    if parts.netloc.count("@") > 1:
        faults.append("has more than one @")
    return faults


def _exception_fault(entry: str) -> str:
    if entry == "*":
        return f"excepts everything, so leave {OPTION} out"
    if "://" in entry:
        return "is an address with a scheme"
    if "/" in entry:
        try:
            ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return "is no range"
        return ""
    name, port = proxy_rules.with_port(entry.lower())
    if port and not (port.isdigit() and 0 < int(port) < 65536):
        return "has a port that is not a number up to 65535"
    if proxy_rules.address(name):
        return ""
    # Something that looks like an address but is invalid would silently never match.
    if re.fullmatch(r"[0-9.]+", name) or not _NAME.fullmatch(name):
        return "is neither a host nor a range"
    return ""


def settings(given: Mapping[str, Any] | None, own: Sequence[str], mirror_url: str) -> dict[str, Any]:
    """The values for files on nodes; `own` has the cluster's ranges, domains and addresses.

    http, https: the proxies, empty for none. no_proxy: the exceptions for Go's programs. direct: those of them that apt
    supports. mirror: the proxy through which nodes reach the mirror, empty for none. addresses: host:port of each
    proxy. mode: the mode of files that contain a proxy.
    """
    chosen = given or {}
    http = str(chosen.get("http") or "").rstrip("/")
    https = str(chosen.get("https") or "").rstrip("/") or http
    if not https:
        return {"http": "", "https": "", "no_proxy": "", "direct": [], "mirror": "", "addresses": [], "mode": "0644"}
    theirs = [str(one).lower() for one in chosen.get("no_proxy") or []]
    exceptions = list(dict.fromkeys([*_ALWAYS, *filter(None, own), *_mirror_exception(mirror_url), *theirs]))
    environment = {"HTTP_PROXY": http, "HTTPS_PROXY": https, "NO_PROXY": ",".join(exceptions)}
    through = proxy_rules.by_environment(mirror_url, environment) if mirror_url else None
    return {
        "http": http,
        "https": https,
        "no_proxy": environment["NO_PROXY"],
        "direct": [entry for entry in exceptions if _is_host(entry)],
        "mirror": environment[through.named] if through else "",
        "addresses": list(dict.fromkeys(urlsplit(url).netloc.rpartition("@")[2] for url in (http, https) if url)),
        # An address without a password is not secret, and other users of apt need to read its configuration.
        "mode": "0600" if "@" in http + https else "0644",
    }


def _mirror_exception(url: str) -> list[str]:
    """The exception for a mirror at a private address, which needs no proxy; none for a mirror with a name."""
    address = proxy_rules.address(urlsplit(url).hostname or "")
    return [str(address)] if address is not None and not address.is_global else []


def _is_host(entry: str) -> bool:
    name, port = proxy_rules.with_port(entry)
    return "/" not in entry and not entry.startswith((".", "*")) and not port and ":" not in name
