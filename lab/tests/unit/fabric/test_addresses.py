"""Address arithmetic by table."""

from __future__ import annotations

import pytest

from ec2lab import addresses, names
from ec2lab.errors import LabError

RANGE = "198.18.4.0/22"


@pytest.mark.parametrize(
    ("index", "host", "vpc"),
    [(0, "198.18.7.128", "198.18.7.129"), (1, "198.18.7.130", "198.18.7.131"), (63, "198.18.7.254", "198.18.7.255")],
)
def test_links_are_pairs_of_the_upper_eighth(index: int, host: str, vpc: str) -> None:
    assert addresses.link(RANGE, index) == addresses.Link(host, vpc)


@pytest.mark.parametrize("index", [-1, 64])
def test_a_link_too_many_is_refused(index: int) -> None:
    with pytest.raises(LabError, match="links for 64 VPCs and no more"):
        addresses.link(RANGE, index)


def test_public_addresses_and_links_share_the_range_without_meeting() -> None:
    public = list(addresses.public_addresses(RANGE))
    links = {end for n in range(addresses.link_count(RANGE)) for end in (vars(addresses.link(RANGE, n)).values())}
    assert public[0] == "198.18.4.1"
    assert public[-1] == "198.18.7.127"
    assert not links & set(public)


def test_a_range_too_small_is_refused() -> None:
    with pytest.raises(LabError, match="must be a /27 or larger"):
        list(addresses.public_addresses("198.18.0.0/28"))


@pytest.mark.parametrize(
    ("in_use", "free"),
    [
        ([], "198.18.0.0/22"),
        (["0.0.0.0/0", "10.0.0.0/8", "fd00::/64"], "198.18.0.0/22"),
        (["198.18.3.128/31"], "198.18.4.0/22"),
        (["198.18.0.0/16"], "198.19.0.0/22"),
        (["198.18.0.0/22", "198.18.8.0/22"], "198.18.4.0/22"),
    ],
)
def test_the_first_free_range(in_use: list[str], free: str) -> None:
    assert addresses.free_range(in_use) == free


def test_no_range_left_says_so() -> None:
    with pytest.raises(LabError, match="take a lab down first"):
        addresses.free_range(["198.18.0.0/15"])


@pytest.mark.parametrize(
    ("network", "in_use", "met"),
    [
        ("10.0.0.0/16", ["10.0.5.0/24"], "10.0.5.0/24"),
        ("10.0.5.0/24", ["192.168.0.0/16", "10.0.0.0/8"], "10.0.0.0/8"),
        ("10.0.0.0/16", ["10.1.0.0/16", "0.0.0.0/0", "::/0"], None),
    ],
)
def test_which_network_is_met(network: str, in_use: list[str], met: str | None) -> None:
    assert addresses.first_overlap(network, in_use) == met


@pytest.mark.parametrize(("vpc", "address"), [("10.240.0.0/16", "10.240.0.2"), ("172.31.0.16/28", "172.31.0.18")])
def test_the_name_server_is_a_vpcs_base_plus_two(vpc: str, address: str) -> None:
    assert addresses.resolver(vpc) == address
    assert address in addresses.services(vpc)


@pytest.mark.parametrize(("cidr", "router"), [("10.240.0.0/24", "10.240.0.1"), ("10.240.0.64/26", "10.240.0.65")])
def test_the_router_is_a_subnets_first_address(cidr: str, router: str) -> None:
    assert addresses.router(cidr) == router


@pytest.mark.parametrize("name", ["a", "default", "m-1", "x" * 32])
def test_names_of_labs(name: str) -> None:
    assert names.check_lab_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a/b", "a b", "x" * 33, "ä"])
def test_names_that_no_lab_has(name: str) -> None:
    with pytest.raises(LabError, match="cannot be a lab's name"):
        names.check_lab_name(name)


def test_no_labs_names_begin_like_anothers() -> None:
    assert not names.namespace("a-b", "vpc-1").startswith(names.prefix("a"))
    assert len(names.uplink("a", "vpc-1")) <= 15
    assert names.uplink("a", "vpc-1") != names.uplink("b", "vpc-1")


def test_names_of_links_fit_the_kernel_and_keep_an_ids_end() -> None:
    assert names.node_link("i-0123456789abcdef0") == "n3456789abcdef0"
    assert len(names.node_plug("i-0123456789abcdef0")) == 15
