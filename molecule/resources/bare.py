# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node holds: printed on the node as JSON in Base64, and compared on the controller with what it held before.

bare.py                            on the node, as root
bare.py compare BEFORE AFTER
"""

# Paths are text here, as find(1) prints them.
# ruff: noqa: PTH118, PTH119, PTH123, PTH208, S108

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import zlib

# What is no file of the machine's own, or is listed by itself. In /.ec2lab the lab keeps what is below /usr.
NO_FILES = ("/proc", "/sys", "/dev", "/run", "/tmp", "/.ec2lab")
# What changes by itself on a machine, or by being managed at all, and why that is none of ours.
ALLOWED = {
    "file": (
        (r"/var/log/(?!kubernetes|pods|containers).*", "logs of the system, and of what it installed and removed"),
        (r"/var/(lib|cache)/(apt|dpkg|debconf|ucf)(/.*)?(-old)?", "the package system's lists, archives and backups"),
        (r"/var/cache/(ldconfig|man)(/.*)?", "made again whenever a package comes or goes"),
        (r"/etc/ld\.so\.cache", "made again whenever a package comes or goes"),
        (r"/etc/(passwd|group|shadow|gshadow|subuid|subgid)-", "the backup that every change of an account writes"),
        (r"/etc/(passwd|group|shadow|gshadow)", "compared by their lines, as users and groups"),
        (r"/etc/\.pwd\.lock", "the lock that every change of an account takes"),
        (r"/var/lib/systemd/(?!deb-systemd).*", "systemd's own: seeds, timers' stamps, the clock"),
        (r"/(root|home/[^/]+)/\.ansible(/.*)?", "Ansible's own, for any playbook"),
        (r"/var/tmp/.*", "the system's own: it is emptied by time"),
        (
            r"/var/lib/(cloud|logrotate|NetworkManager|dhcp|chrony|private)(/.*)?",
            "written by the machine's own services",
        ),
        (r".*/__pycache__(/.*)?", "compiled again by whoever runs them"),
        (r"/etc/apparmor\.d/cache(/.*)?", "compiled again at every start"),
    ),
    "process": ((r"(apt|dpkg|unattended|systemd-timedated|systemd-hostnamed).*", "started by timers and on demand"),),
    "listener": ((r"udp .*", "time and name services ask from a port of the moment"),),
    "sysctl": (
        (r"fs\.(dentry-state|file-nr|inode-nr|inode-state|quota\..*)", "counters"),
        (r"kernel\.(random\..*|ns_last_pid|pty\.nr|pid_max|threads-max|keys\..*_users)", "counters"),
        (r"net\.netfilter\.nf_conntrack_(count|max|buckets)", "the connections of the moment, and the machine's size"),
        (r"(vm|kernel)\.(stat_refresh|sched_.*)", "commands and counters"),
        (r"net\.ipv[46]\.route\.flush|net\.nf_conntrack_max|kernel\.tainted", "commands and marks of the kernel"),
        (r"net\.(ipv4|ipv6|mpls)\.(conf|neigh)\.(veth|cni).*", "gone with its interface"),
    ),
}


def run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def files() -> dict[str, str]:
    found: dict[str, str] = {}
    for folder, folders, names in os.walk("/"):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in NO_FILES]
        for name in names + folders:
            path = os.path.join(folder, name)
            if not any(re.fullmatch(pattern, path) for pattern, _why in ALLOWED["file"]):
                found[path] = described(path)
    for folder, folders, names in os.walk("/run"):
        for name in names + folders:
            path = os.path.join(folder, name)
            if not re.match(r"/run/(adduser|systemd|udev|user|log|sudo|lock|dbus|ansible|sshd)(/|$)", path):
                found[path] = "there"
    return found


def described(path: str) -> str:
    try:
        status = os.lstat(path)
        access = f"{stat.S_IMODE(status.st_mode):04o} {status.st_uid}:{status.st_gid}"
        if stat.S_ISLNK(status.st_mode):
            return f"link to {os.readlink(path)}"
        if not stat.S_ISREG(status.st_mode):
            return f"{stat.filemode(status.st_mode)[0]} {access}"
        # Programs of the distribution are known by their size: their packages are compared too.
        if path.startswith(("/usr/lib/", "/usr/share/", "/usr/bin/", "/usr/sbin/")):
            return f"{access} {status.st_size} bytes"
        with open(path, "rb") as stream:
            return f"{access} {hashlib.sha256(stream.read()).hexdigest()}"
    except OSError as error:
        return str(error.strerror)


def sysctls() -> dict[str, str]:
    lines = run("sysctl", "-a").splitlines()
    return dict(line.split(" = ", 1) for line in lines if " = " in line)


def processes() -> dict[str, str]:
    found: dict[str, int] = {}
    for line in run("ps", "-eo", "ppid=,args=").splitlines():
        parent, _space, words = line.strip().partition(" ")
        name = os.path.basename(words.strip().split(" ")[0])
        # Not the kernel's threads, and not this very look.
        if parent != "2" and not re.match(r"\[|ps$|python3?$|sudo$|sh$|bash$|sshd|sftp|\(sd-pam|systemd$", name):
            found[name] = found.get(name, 0) + 1
    return dict.fromkeys(found, "runs")


def rules() -> dict[str, str]:
    """The kernel's packet rules without counters and handles, and what two views of them would tell twice."""
    found = {}
    for program in ("iptables-save", "ip6tables-save"):
        for line in run(program).splitlines():
            if not line.startswith(("#", "*", "COMMIT")):
                uncounted = re.sub(r"\[[0-9:]+\]", "", line)
                found[f"{program}: {uncounted}"] = "there"
    for line in run("nft", "list", "tables").splitlines():
        found[f"nft: {line}"] = "there"
    for line in run("ipset", "list", "-n").splitlines():
        found[f"ipset: {line}"] = "there"
    return found


def snapshot() -> dict[str, dict[str, str]]:
    lines = {
        "package": run("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Abbrev}\n"),
        "user": run("getent", "passwd"),
        "group": run("getent", "group"),
        "route": run("ip", "-o", "route", "show", "table", "all"),
        "policy": run("ip", "-o", "rule"),
        "mount": run("findmnt", "--noheadings", "--raw", "--output", "TARGET,FSTYPE"),
        "swap": run("swapon", "--noheadings", "--show=NAME"),
    }
    found = {
        kind: {re.sub(r" (expires|refid) \S+", "", line).strip(): "there" for line in text.splitlines() if line.strip()}
        for kind, text in lines.items()
    }
    found["interface"] = dict.fromkeys(os.listdir("/sys/class/net"), "there")
    found["file"] = files()
    found["sysctl"] = sysctls()
    found["process"] = processes()
    found["rule"] = rules()
    found["unit"] = {
        " ".join(line.split()[:2]): "there"
        for line in run("systemctl", "list-unit-files", "--no-legend", "--plain").splitlines()
        if ".mount " not in line
    }
    found["running"] = {
        line.split()[0]: "runs"
        for line in run(
            "systemctl", "list-units", "--no-legend", "--plain", "--type=service,socket,timer,slice"
        ).splitlines()
        if not re.match(r"(user|session|init|apt|dpkg|e2scrub|fstrim|logrotate|man-db|systemd-)", line)
    }
    found["failed"] = {
        line.split()[0]: "failed" for line in run("systemctl", "--failed", "--no-legend", "--plain").splitlines()
    }
    found["listener"] = {
        f"{fields[0]} {fields[4]}": "listens"
        for fields in (line.split() for line in run("ss", "-Hlntu").splitlines())
        if len(fields) > 4
    }
    found["environment"] = {path: described(path) for path in ("/etc/resolv.conf", "/etc/hostname")}
    return found


def differences(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> list[str]:
    """What differs beyond what is allowed, one line each."""
    found = []
    for kind in sorted(before):
        allowed = [pattern for pattern, _why in ALLOWED.get(kind, ())]
        for name in sorted({*before[kind], *after.get(kind, {})}):
            was, now = before[kind].get(name, "not there"), after.get(kind, {}).get(name, "not there")
            if was != now and not any(re.fullmatch(pattern, name) for pattern in allowed):
                found.append(f"{kind} {name}: {was} -> {now}")
    return found


def read(path: str) -> dict[str, dict[str, str]]:
    with open(path) as stream:
        found: dict[str, dict[str, str]] = json.loads(zlib.decompress(base64.b64decode(stream.read())))
    return found


def main(arguments: list[str]) -> int:
    if not arguments:
        print(base64.b64encode(zlib.compress(json.dumps(snapshot()).encode())).decode())
        return 0
    _word, before, after = arguments
    found = differences(read(before), read(after))
    print("\n".join(found) or "as it was before")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
