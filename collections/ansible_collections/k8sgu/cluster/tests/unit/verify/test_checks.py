from __future__ import annotations

from xml.etree import ElementTree

from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.checks import Check, failure_text, junit, until

GOOD = Check("nodes are ready", True, "3 nodes", "3 nodes")
BAD = Check("etcd has its quorum", False, "3 healthy members", "2 of 3", "cp-0", "etcdctl endpoint health")


def test_a_failure_names_what_was_expected_and_found_and_where_to_look():
    text = failure_text([GOOD, BAD])
    for part in ("etcd has its quorum", "cp-0", "3 healthy members", "2 of 3", "etcdctl endpoint health"):
        assert part in text
    assert "nodes are ready" not in text


def test_the_junit_file_counts_what_failed():
    root = ElementTree.fromstring(junit([GOOD, BAD], "verify"))
    assert (root.get("tests"), root.get("failures")) == ("2", "1")
    assert [case.get("name") for case in root.iter("testcase")] == [GOOD.name, BAD.name]
    assert len(list(root.iter("failure"))) == 1


def test_until_returns_the_first_passing_answer():
    answers = iter([BAD, BAD, GOOD])
    assert until(lambda: next(answers), timeout=30, interval=0).seen == "3 nodes"


def test_until_asks_why_once_and_only_after_a_failure():
    asked = []

    def why():
        asked.append(1)
        return "a disk is full"

    assert until(lambda: GOOD, timeout=0, why=why).seen == "3 nodes"
    assert asked == []
    times = iter(range(0, 1000, 40))
    check = until(lambda: BAD, timeout=100, interval=0, clock=lambda: float(next(times)), why=why)
    assert check.seen == "2 of 3 (after 120 s): a disk is full"
    assert asked == [1]


def test_until_gives_up_and_says_after_how_long():
    times = iter(range(0, 1000, 40))
    check = until(lambda: BAD, timeout=100, interval=0, clock=lambda: float(next(times)))
    assert not check.passed
    assert check.seen == "2 of 3 (after 120 s)"
