# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every check of a description: what trips it, its message, and that a good description passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import names as name_rules
from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight import check, releases, variables

COLLECTION = Path(__file__).resolve().parents[3]
ROLES = COLLECTION / "roles"
RELEASES = COLLECTION / "releases"
VERSION = releases.released(RELEASES)[0]
GOOD: dict[str, Any] = {
    "k8sgu_cluster_name": "demo",
    "k8sgu_kubernetes_version": VERSION,
    "k8sgu_releases_dir": str(RELEASES),
    "k8sgu_vpc_id": None,
    "k8sgu_vpc_cidr": "10.240.0.0/16",
    "k8sgu_admin_cidrs": ["203.0.113.7/32"],
    "k8sgu_pod_cidr": "10.200.0.0/16",
    "k8sgu_pod_cidr_node_prefix": 24,
    "k8sgu_service_cidr": "10.32.0.0/16",
    "k8sgu_api_service_address": "10.32.0.1",
    "k8sgu_cluster_dns_address": "10.32.0.10",
    "k8sgu_metrics_server": None,
    "k8sgu_verify_autoscaling": None,
    "k8sgu_encryption_provider": "secretbox",
    "k8sgu_encryption_resources": ["secrets"],
    "k8sgu_encryption_kms_endpoint": "",
    "k8sgu_apiserver_shutdown_delay_seconds": None,
    "k8sgu_etcd_volume_size": 0,
    "k8sgu_root_volume_size": None,
    "k8sgu_etcd_quota_bytes": None,
    "k8sgu_etcd_snapshot_minutes": 15,
    "k8sgu_drill_daily": False,
    "k8sgu_etcd_snapshot_keep": None,
    "k8sgu_etcd_defragment_percent": None,
    "k8sgu_backup_recipients": ["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"],
    "k8sgu_proxy": None,
    "k8sgu_max_pods": None,
    "k8sgu_backup_bucket": None,
    "k8sgu_backup_bucket_days": None,
    "k8sgu_control_plane_count": None,
    "k8sgu_worker_count": None,
    "k8sgu_pools": None,
}
GIB = 1 << 30
# Invalid names of clusters, as in the description's YAML, each with its error.
NO_CLUSTERS: list[tuple[Any, str]] = [
    ("my_cluster", "'my_cluster' cannot be a cluster's name"),
    ("Demo", "'Demo' cannot be"),
    ("-demo", "'-demo' cannot be"),
    ("demo-", "'demo-' cannot be"),
    ("", "'' cannot be"),
    ("1234", "'1234' cannot be"),
    ("1e3", "'1e3' cannot be"),
    ("a" * 29, f"'{'a' * 29}' cannot be"),
    ("a" * 57, f"'{'a' * 57}' cannot be"),
    (1234, "1234, which is not text in YAML, cannot be"),
    (1000.0, "1000.0, which is not text in YAML,"),
    (True, "true, which is not text in YAML,"),
    (None, "null, which is not text in YAML,"),
    (["demo"], '["demo"], which is not text in YAML,'),
]


def pool(name: Any, count: Any = 1) -> dict[str, Any]:
    return {"name": name, "count": count}


def node(name: str, address: str = "10.240.0.10", connection: str = "198.18.0.10", **more: Any) -> dict[str, Any]:
    return {"name": name, "control_plane": False, "etcd": False, "address": address, "connection": connection, **more}


ONE = node("demo-control-plane-0", control_plane=True, etcd=True)


def described(changes: dict[str, Any], *seen: str) -> list[str]:
    return check.check({**GOOD, **changes}, [*GOOD, *seen], [], [], ROLES, described=True)


def inventory(*nodes: dict[str, Any], **changes: Any) -> list[str]:
    return check.check({**GOOD, **changes}, list(GOOD), list(nodes), [], ROLES, described=False)


def test_a_good_description_passes() -> None:
    assert described({}) == []
    assert inventory(ONE, node("demo-worker-0", "10.240.0.20", "198.18.0.20")) == []


@pytest.mark.parametrize(
    ("changes", "option", "seen", "way_out"),
    [
        ({"k8sgu_kubernetes_version": "1.35.9"}, "k8sgu_kubernetes_version", "'1.35.9'", f"nearest is {VERSION}"),
        ({"k8sgu_kubernetes_version": "latest"}, "k8sgu_kubernetes_version", "'latest'", "nearest is 1."),
        ({"k8sgu_encryption_provider": "kms"}, "k8sgu_encryption_kms_endpoint", "is empty", "unix:///path"),
        (
            {"k8sgu_encryption_provider": "kms", "k8sgu_encryption_kms_endpoint": "/run/kms.sock"},
            "k8sgu_encryption_kms_endpoint",
            "'/run/kms.sock'",
            "unix:///path",
        ),
        ({"k8sgu_encryption_resources": ["*.*"]}, "k8sgu_encryption_resources", "'*.*'", "name each one"),
        ({"k8sgu_proxy": {"http": "proxy:3128"}}, "k8sgu_proxy.http", "has no scheme", "http://HOST:PORT"),
        (
            {"k8sgu_proxy": {"http": "http://p:1", "no_proxy": ["*"]}},
            "k8sgu_proxy.no_proxy",
            "'*' excepts everything",
            "leave k8sgu_proxy out",
        ),
        ({"k8sgu_releases_dir": "/nonexistent"}, "k8sgu_releases_dir", "/nonexistent", "give the directory"),
        ({"k8sgu_pod_cidr": "10.240.128.0/17"}, "k8sgu_pod_cidr", "overlaps k8sgu_vpc_cidr", "share no address"),
        (
            {
                "k8sgu_service_cidr": "10.240.0.0/20",
                "k8sgu_api_service_address": "10.240.0.1",
                "k8sgu_cluster_dns_address": "10.240.0.10",
            },
            "k8sgu_service_cidr",
            "overlaps k8sgu_vpc_cidr",
            "share no address",
        ),
        ({"k8sgu_pod_cidr": "10.32.0.0/15"}, "k8sgu_service_cidr", "overlaps k8sgu_pod_cidr", "share no address"),
        ({"k8sgu_pod_cidr": "127.0.0.0/16"}, "k8sgu_pod_cidr", "overlaps the loopback range", "choose another"),
        ({"k8sgu_pod_cidr": "169.254.0.0/16"}, "k8sgu_pod_cidr", "overlaps the link-local range", "choose another"),
        ({"k8sgu_vpc_cidr": "224.0.0.0/16"}, "k8sgu_vpc_cidr", "overlaps the multicast range", "choose another"),
        ({"k8sgu_pod_cidr": "10.200.0.1/16"}, "k8sgu_pod_cidr", "host bits set", "give one like"),
        ({"k8sgu_pod_cidr": "fd00::/56"}, "k8sgu_pod_cidr", "'fd00::/56' is not an IPv4 range", "give one like"),
        ({"k8sgu_vpc_cidr": "ten"}, "k8sgu_vpc_cidr", "'ten' is not an IPv4 range", "give one like"),
        (
            {"k8sgu_pod_cidr": "10.200.0.0/23"},
            "k8sgu_pod_cidr",
            "2 parts of /24 (k8sgu_pod_cidr_node_prefix) for 3 nodes",
            "choose a larger range",
        ),
        (
            {"k8sgu_pod_cidr": "10.200.0.0/22", "k8sgu_pools": [{"name": "large", "count": 2}]},
            "k8sgu_pod_cidr",
            "for 5 nodes",
            "choose a larger range",
        ),
        ({"k8sgu_pod_cidr_node_prefix": 15}, "k8sgu_pod_cidr_node_prefix", "/15 is not part of", "give 24"),
        ({"k8sgu_pod_cidr_node_prefix": 31}, "k8sgu_pod_cidr_node_prefix", "/31 is not part of", "give 24"),
        ({"k8sgu_pod_cidr_node_prefix": 26}, "k8sgu_pod_cidr_node_prefix", "addresses for 61 pods", "smaller number"),
        (
            {"k8sgu_apiserver_shutdown_delay_seconds": 14},
            "k8sgu_apiserver_shutdown_delay_seconds",
            "14 s",
            "choose 15 to 130",
        ),
        ({"k8sgu_apiserver_shutdown_delay_seconds": 131}, "k8sgu_apiserver_shutdown_delay_seconds", "131 s", "130"),
        (
            {"k8sgu_etcd_snapshot_minutes": 7},
            "k8sgu_etcd_snapshot_minutes",
            "every 7 minutes",
            "choose one of 1, 2, 3,",
        ),
        ({"k8sgu_etcd_snapshot_minutes": -1}, "k8sgu_etcd_snapshot_minutes", "every -1 minutes", "or 0 for none"),
        (
            {"k8sgu_drill_daily": "yes", "k8sgu_etcd_snapshot_minutes": 0},
            "k8sgu_drill_daily",
            "nothing to restore",
            "leave one of the two out",
        ),
        ({"k8sgu_etcd_snapshot_keep": 0}, "k8sgu_etcd_snapshot_keep", "0, and the newest", "choose 1 or more"),
        ({"k8sgu_backup_bucket": "a.b"}, "k8sgu_backup_bucket", "'a.b' has a dot", "a name without dots"),
        ({"k8sgu_backup_bucket": "Backups"}, "k8sgu_backup_bucket", "'Backups'", "give 3 to 63"),
        ({"k8sgu_backup_bucket_days": -1}, "k8sgu_backup_bucket_days", "-1 days", "or 0 for never"),
        ({"k8sgu_backup_bucket_days": 36501}, "k8sgu_backup_bucket_days", "36501 days", "from 1 to 36500"),
        *[
            ({"k8sgu_etcd_quota_bytes": given}, "k8sgu_etcd_quota_bytes", seen, way_out)
            for given, seen, way_out in [
                (8589934593, "8589934593 (8 GiB) is above etcd's own limit of 8 GiB", "give 8589934592 at most"),
                ("17179869184", "17179869184 (16 GiB) is above", "https://etcd.io/docs/v3.6/dev-guide/limit/"),
                (33554431, "33554431 (32 MiB) is less than a cluster needs", "give 33554432 (32 MiB) at least"),
                (0, "0 is no quota: etcd takes 0 as 2 GiB", "or leave it out for 4 GiB"),
                (-1, "-1 is no quota: etcd takes a negative number as none at all", "give 33554432"),
                ("4GiB", "'4GiB' is no whole number of bytes", "such as 4294967296, which is 4 GiB"),
                (4.5, "4.5 is no whole number", "such as 4294967296"),
                (True, "True is no whole number", "such as 4294967296"),
                ([], "[] is no whole number", "such as 4294967296"),
            ]
        ],
        (
            {"k8sgu_etcd_quota_bytes": 8 * GIB},
            "k8sgu_root_volume_size",
            "20 GiB, and a control-plane node whose database fills its quota (k8sgu_etcd_quota_bytes, 8 GiB) needs 32",
            "or etcd a volume of its own (k8sgu_etcd_volume_size: 18), or k8sgu_etcd_quota_bytes: 4563402752 (4.2 GiB)",
        ),
        (
            {"k8sgu_etcd_volume_size": 8},
            "k8sgu_etcd_volume_size",
            "8 GiB, and a database that fills its quota (k8sgu_etcd_quota_bytes, 4 GiB) needs 9",
            "give 9 or more, or k8sgu_etcd_quota_bytes: 3758096384 (3.5 GiB)",
        ),
        (
            {"k8sgu_etcd_volume_size": 18, "k8sgu_etcd_quota_bytes": 8 * GIB},
            "k8sgu_root_volume_size",
            "20 GiB, and a control-plane node whose database fills its quota (k8sgu_etcd_quota_bytes, 8 GiB) needs 23: "
            "16.9 GiB for two snapshots, and 5 GiB for the system",
            "give 23 or more, or k8sgu_etcd_quota_bytes:",
        ),
        ({"k8sgu_root_volume_size": "large"}, "k8sgu_root_volume_size", "'large' is no whole number of GiB", "as 20"),
        (
            {"k8sgu_verify_autoscaling": True, "k8sgu_metrics_server": "false"},
            "k8sgu_verify_autoscaling",
            "nothing is scaled without metrics-server",
            "set k8sgu_metrics_server to true",
        ),
        ({"k8sgu_etcd_defragment_percent": 100}, "k8sgu_etcd_defragment_percent", "100; choose", "or 0 for never"),
        (
            {"k8sgu_backup_recipients": ["AGE-SECRET-KEY-1X"]},
            "k8sgu_backup_recipients",
            ": a private key is no public key",
            "age1",
        ),
        ({"k8sgu_backup_recipients": ["age1ql3z7"]}, "k8sgu_backup_recipients", "age1ql3z7 is", "and 58 characters"),
        ({"k8sgu_max_pods": 254}, "k8sgu_pod_cidr_node_prefix", "k8sgu_max_pods is 254", "smaller number"),
        (
            {"k8sgu_api_service_address": "10.33.0.1"},
            "k8sgu_api_service_address",
            "10.33.0.1 is not the first",
            "give 10.32.0.1",
        ),
        ({"k8sgu_api_service_address": "first"}, "k8sgu_api_service_address", "'first'", "give one of"),
        ({"k8sgu_cluster_dns_address": "10.33.0.10"}, "k8sgu_cluster_dns_address", "10.33.0.10", "give 10.32.0.10"),
        (
            {"k8sgu_cluster_dns_address": "10.32.0.1"},
            "k8sgu_cluster_dns_address",
            "not a free address",
            "give 10.32.0.10",
        ),
        (
            {"k8sgu_service_cidr": "10.32.0.0/29", "k8sgu_cluster_dns_address": "10.32.0.2"},
            "k8sgu_service_cidr",
            "fewer than 16",
            "choose a larger range",
        ),
        ({"k8sgu_control_plane_count": 2}, "k8sgu_control_plane_count", "2 etcd members", "1 or 3"),
        ({"k8sgu_control_plane_count": 4}, "k8sgu_control_plane_count", "4 etcd members", "3 or 5"),
        ({"k8sgu_control_plane_count": 0}, "k8sgu_control_plane_count", "0 etcd members", "1 or 3"),
        *[
            ({"k8sgu_cluster_name": name}, "k8sgu_cluster_name", seen, name_rules.CLUSTER_RULE)
            for name, seen in NO_CLUSTERS
        ],
        ({"k8sgu_cluster_name": "internal-x"}, "k8sgu_cluster_name", "'internal-x' cannot be", "choose another"),
        ({"k8sgu_pools": [pool("Big")]}, "k8sgu_pools[0].name", "'Big' cannot be a pool's name", name_rules.POOL_RULE),
        ({"k8sgu_pools": [pool(1)]}, "k8sgu_pools[0].name", "1, which is not text in YAML,", name_rules.POOL_RULE),
        ({"k8sgu_pools": [{"nme": "big", "count": 1}]}, "k8sgu_pools[0]", "has no name", "a name and a count"),
        ({"k8sgu_pools": ["big"]}, "k8sgu_pools[0]", "has no name", "a name and a count"),
        ({"k8sgu_pools": "big"}, "k8sgu_pools[0]", "has no name", "a name and a count"),
        ({"k8sgu_pools": [pool("big", "many")]}, "k8sgu_pools[0].count", "'many' is not a number", "give 0 or more"),
        ({"k8sgu_pools": [pool("big", -1)]}, "k8sgu_pools[0].count", "-1, which is no", "give 0 or more"),
        ({"k8sgu_pools": [pool("worker")]}, "k8sgu_pools", "'workers' and 'worker': two pools", "its own name"),
        (
            {"k8sgu_pools": [pool("control_plane")]},
            "k8sgu_pools",
            "'control_plane' and 'control_plane'",
            "its own name",
        ),
        ({"k8sgu_pools": [pool("a-b"), pool("a_b")]}, "k8sgu_pools", "'a-b' and 'a_b': two pools", "its own name"),
        ({"k8sgu_pools": [pool("g" * 45, 11)]}, "k8sgu_pools", "-10 is too long", "shorten the pool's name"),
        ({"k8sgu_zones": {"a": 1}}, "k8sgu_zones", '{"a": 1}, which is not text in YAML, is not a list', "give a list"),
        ({"k8sgu_zones": ["us-east-1a", "us-east-1a"]}, "k8sgu_zones", "is given twice", "once"),
        (
            {"k8sgu_zones": ["us-east-1a"], "k8sgu_region": "eu-west-1"},
            "k8sgu_zones",
            "not in region eu-w",
            "eu-west-1a",
        ),
        ({"k8sgu_zones": "a,a"}, "k8sgu_zones", "'a' is given twice", "once"),
        ({"k8sgu_tags": ["a"]}, "k8sgu_tags", "is not a dictionary", "give a dictionary"),
        ({"k8sgu_tags": "aws:x=1"}, "k8sgu_tags", "'aws:x' is reserved", "choose a key without k8sgu.io/"),
        ({"k8sgu_tags": {"aws:x": "1"}}, "k8sgu_tags", "'aws:x' is reserved", "choose a key without k8sgu.io/"),
    ],
)
def test_a_bad_value_is_named_with_what_was_found_and_what_to_do(
    changes: dict[str, Any], option: str, seen: str, way_out: str
) -> None:
    problems = described(changes)
    assert len(problems) == 1, problems
    assert problems[0].startswith(f"{option}: ")
    assert seen in problems[0]
    assert way_out in problems[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"k8sgu_etcd_quota_bytes": 32 << 20},
        {"k8sgu_etcd_quota_bytes": "4294967296"},
        {"k8sgu_etcd_quota_bytes": 8 * GIB, "k8sgu_root_volume_size": 32},
        {"k8sgu_etcd_quota_bytes": 8 * GIB, "k8sgu_root_volume_size": "23", "k8sgu_etcd_volume_size": "18"},
        {"k8sgu_etcd_quota_bytes": 256 << 20, "k8sgu_etcd_volume_size": 1},
    ],
)
def test_a_quota_that_etcd_and_the_disks_bear(changes: dict[str, Any]) -> None:
    assert described(changes) == []


def test_a_quota_is_judged_without_the_infrastructure_too() -> None:
    [problem] = inventory(ONE, k8sgu_etcd_quota_bytes=9 * GIB)
    assert problem.startswith("k8sgu_etcd_quota_bytes: 9663676416 (9 GiB) is above etcd's own limit")
    # The volumes are the inventory's matter.
    assert inventory(ONE, k8sgu_etcd_quota_bytes=8 * GIB, k8sgu_root_volume_size=20) == []


def test_the_range_of_a_vpc_that_was_brought_is_not_the_one_described() -> None:
    assert described({"k8sgu_vpc_id": "vpc-1", "k8sgu_vpc_cidr": "10.200.0.0/16"}) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("k8sgu_pod_cdir", "k8sgu_pod_cdir: there is no such variable; did you mean k8sgu_pod_cidr?"),
        ("k8sgu_worker_counts", "k8sgu_worker_counts: there is no such variable; did you mean k8sgu_worker_count?"),
        ("k8sgu_qqqqqqqqqqqqqqqqqqqqqqqqqqq", "there is no such variable; remove it"),
    ],
)
def test_an_unknown_variable(name: str, expected: str) -> None:
    problems = described({}, name)
    assert len(problems) == 1, problems
    assert expected in problems[0]


@pytest.mark.parametrize("name", ["k8sgu_node", "k8sgu_release", "k8sgu_unit_hardening", "ansible_user", "other"])
def test_what_roles_derive_and_what_is_not_ours_is_not_unknown(name: str) -> None:
    assert described({}, name) == []


def test_every_variable_of_the_roles_defaults_is_known() -> None:
    known = {*variables.options(ROLES), *variables.derived(ROLES)}
    for path in ROLES.glob("*/defaults/main.yml"):
        names = [line.partition(":")[0] for line in path.read_text().splitlines() if line.startswith("k8sgu_")]
        assert set(names) <= known, path


OTHER = node("demo-worker-0", "10.240.0.20", "198.18.0.20")


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (
            [ONE, {**OTHER, "address": "10.200.3.4"}],
            "k8sgu_pod_cidr: 10.200.0.0/16 holds the address 10.200.3.4 of demo-w",
        ),
        (
            [ONE, {**OTHER, "address": "10.32.3.4"}],
            "k8sgu_service_cidr: 10.32.0.0/16 holds the address 10.32.3.4 of demo-w",
        ),
        ([ONE, {**OTHER, "address": "ten"}], "demo-worker-0: ec2_private_ip 'ten' is not an IPv4 address"),
        ([ONE, {**OTHER, "name": "demo_worker"}], "demo_worker: is not a host name (RFC 1123)"),
        ([ONE, {**OTHER, "name": "w" * 64}], f"{'w' * 64}: is too long for system:node:<name>"),
        ([ONE, {**OTHER, "name": "w" * 53}], "a node's certificate (53 characters); give at most 52"),
        ([ONE, {**OTHER, "name": "node.example"}], "node.example: is not a host name (RFC 1123)"),
        (
            [ONE, {**OTHER, "address": ONE["address"]}],
            "demo-control-plane-0 and demo-worker-0: duplicate address 10.240.0.10",
        ),
        ([ONE, {**OTHER, "connection": ONE["connection"]}], "demo-worker-0: duplicate connection 198.18.0.10"),
        ([ONE, {**OTHER, "etcd": True}], "the inventory's group etcd: 2 etcd members; an odd number is needed: 1 or 3"),
        ([OTHER], "the inventory's group etcd: 0 etcd members"),
    ],
)
def test_a_bad_inventory(nodes: list[dict[str, Any]], expected: str) -> None:
    problems = inventory(*nodes)
    assert len(problems) == 1, problems
    assert expected in problems[0]


def test_names_that_differ_only_in_case_are_duplicates() -> None:
    problems = inventory(ONE, OTHER, node("Demo-Worker-0", "10.240.0.21", "198.18.0.21"))
    assert any("demo-worker-0 and Demo-Worker-0: duplicate name demo-worker-0" in problem for problem in problems)


def test_a_pod_range_too_small_for_the_inventory() -> None:
    nodes = [node(f"demo-worker-{number}", f"10.240.1.{number}", f"198.18.1.{number}") for number in range(4)]
    problems = inventory(ONE, *nodes, k8sgu_pod_cidr="10.200.0.0/22")
    assert len(problems) == 1
    assert "for 5 nodes" in problems[0]


def test_all_problems_are_found_in_one_run() -> None:
    problems = described(
        {"k8sgu_control_plane_count": 2, "k8sgu_kubernetes_version": "1.2.3", "k8sgu_pod_cidr": "10.32.0.0/16"},
        "k8sgu_x",
    )
    assert [problem.partition(":")[0] for problem in problems] == [
        "k8sgu_x",
        "k8sgu_kubernetes_version",
        "k8sgu_service_cidr",
        "k8sgu_control_plane_count",
    ]


@pytest.mark.parametrize(
    ("version", "nearest"),
    [
        ("1.36.5", "1.36.4"),
        ("1.36.0", "1.36.4"),
        ("v1.37.9", "1.37.2"),
        ("1.40.0", "1.37.2"),
        ("2", "1.36.4"),
        ("x", "1.37.2"),
    ],
)
def test_the_nearest_version(version: str, nearest: str) -> None:
    problems = releases.check_version(version, ["1.36.4", "1.37.2"], "releases")
    assert problems[0].endswith(f"the nearest is {nearest}")


def test_the_longest_node_name_that_there_can_be() -> None:
    assert described({"k8sgu_pools": [pool("g" * 45, 10)]}) == []


@pytest.mark.parametrize("changes", [{}, {"k8sgu_vpc_id": "vpc-1"}])
@pytest.mark.parametrize("empty", [[], None])
def test_somebody_has_to_get_in(changes: dict[str, Any], empty: Any) -> None:
    (problem,) = described({"k8sgu_admin_cidrs": empty, **changes})
    assert problem.startswith("k8sgu_admin_cidrs: empty") and "203.0.113.7/32" in problem and "k8sgu_vpc_id" in problem
    assert described({"k8sgu_admin_cidrs": ["10.0.1.0/24"], **changes}) == []
    # Nodes that are there already are somebody else's matter.
    assert inventory(ONE, k8sgu_admin_cidrs=empty) == []
