from __future__ import annotations

import datetime
from pathlib import Path
from typing import Iterator

import pytest
from moto import mock_aws

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.caller_identity import (
    Caller,
    RootUser,
    ask,
    files_to_check,
    judge,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.session import Aws, Connection

NOW = datetime.datetime.now(datetime.timezone.utc)
USER = "arn:aws:iam::123456789012:user/team/operator"


def caller(arn: str = USER, age: int | None = None) -> Caller:
    return Caller("123456789012", arn, "AIDA", "us-east-1", "https://ec2.us-east-1.amazonaws.com", age)


def test_the_root_user_is_refused() -> None:
    with pytest.raises(RootUser, match="root user of account 123456789012"):
        judge(caller("arn:aws:iam::123456789012:root"), [], 90)


def test_the_root_user_by_permission() -> None:
    assert judge(caller("arn:aws:iam::123456789012:root"), [], 90, allow_root=True) == []


@pytest.mark.parametrize("arn", [USER, "arn:aws:sts::123456789012:assumed-role/root/x", "arn:aws:iam::1:user/root"])
def test_others_are_not_taken_for_root(arn: str) -> None:
    assert judge(caller(arn), [], 90) == []


@pytest.mark.parametrize(("age", "warns"), [(None, False), (90, False), (91, True)])
def test_an_old_key(age: int | None, warns: bool) -> None:
    warnings = judge(caller(age=age), [], 90)
    assert bool(warnings) == warns
    assert not warns or ("91 days" in warnings[0] and USER in warnings[0])


@pytest.mark.parametrize(
    ("mode", "warns"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o666, True)]
)
def test_a_file_that_others_can_read(tmp_path: Path, mode: int, warns: bool) -> None:
    credentials = tmp_path / "my credentials"
    credentials.write_text("[default]\naws_access_key_id = A\naws_secret_access_key = B\n")
    credentials.chmod(mode)
    warnings = judge(caller(), [credentials], 90)
    assert bool(warnings) == warns
    assert not warns or f"chmod 600 '{credentials}'" in warnings[0]


def test_files_with_secrets_are_found_where_botocore_looks(tmp_path: Path) -> None:
    credentials, config = tmp_path / "credentials", tmp_path / "config"
    credentials.write_text("[default]\naws_secret_access_key=B\n")
    config.write_text("[default]\nregion = us-east-1\n")
    environment = {"AWS_SHARED_CREDENTIALS_FILE": str(credentials), "AWS_CONFIG_FILE": str(config)}
    assert files_to_check(environment) == [credentials]
    config.write_text("[default]\n  aws_session_token = T\n")
    assert files_to_check(environment) == [credentials, config]
    credentials.unlink()
    assert files_to_check(environment) == [config]


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        yield


def user_key() -> Connection:
    import boto3

    iam = boto3.client("iam", region_name="us-east-1")
    iam.create_user(UserName="operator", Path="/team/")
    key = iam.create_access_key(UserName="operator")["AccessKey"]
    return Connection(region="us-east-1", access_key=key["AccessKeyId"], secret_key=key["SecretAccessKey"])


def test_the_age_of_a_users_key(account: None) -> None:
    aws = Aws(user_key())
    assert ask(aws, NOW).arn == USER
    assert ask(aws, NOW + datetime.timedelta(days=100, hours=1)).key_age_days == 100


def test_a_role_has_no_key_that_ages(account: None) -> None:
    assert ask(Aws(Connection(region="us-east-1")), NOW).key_age_days is None


def test_without_the_permission_to_look_there_is_no_age(account: None) -> None:
    from moto.core import set_initial_no_auth_action_count

    aws = Aws(user_key())  # a user without any policy

    @set_initial_no_auth_action_count(0)
    def enforced() -> Caller:
        return ask(aws, NOW)

    assert enforced().key_age_days is None
