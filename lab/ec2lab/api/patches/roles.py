"""Credentials of instance profiles: one set per instance, renewed before it expires, and known to STS.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from ec2lab.api.backends import REGION, ec2, iam, sts

LIFETIME = timedelta(hours=6)
RENEW_BEFORE = timedelta(minutes=15)


def install() -> None:
    """Replaces nothing in moto; the metadata service calls `credentials`."""


def profile_of(instance: Any) -> Any:
    """The instance's profile object, or None."""
    association = ec2(instance.region_name).iam_instance_profile_associations.get(instance.id)
    if association is None:
        return None
    name = association.iam_instance_profile.name
    return next((profile for profile in iam().instance_profiles.values() if profile.name == name), None)


def role_of(instance: Any) -> Any:
    profile = profile_of(instance)
    return profile.roles[0] if profile is not None and profile.roles else None


def last_credentials(instance: Any) -> dict[str, Any] | None:
    """The credentials that the instance got last, or None."""
    given: dict[str, Any] | None = getattr(instance, "role_credentials", None)
    return given


def credentials(instance: Any) -> dict[str, str] | None:
    """The document that the metadata service serves for the instance's role."""
    role = role_of(instance)
    if role is None:
        return None
    now = datetime.now(UTC)
    given = last_credentials(instance)
    if given is None or given["role"] != role.arn or given["until"] - RENEW_BEFORE < now:
        assumed = sts().assume_role(
            region_name=REGION,
            role_session_name=instance.id,
            role_arn=role.arn,
            policy="",
            duration=int(LIFETIME.total_seconds()),
            external_id="",
        )
        given = {
            "role": role.arn,
            "since": now,
            "until": now + LIFETIME,
            "key": assumed.access_key_id,
            "secret": assumed.secret_access_key,
            "token": assumed.session_token,
        }
        instance.role_credentials = given
    return {
        "Code": "Success",
        "LastUpdated": given["since"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        "Type": "AWS-HMAC",
        "AccessKeyId": given["key"],
        "SecretAccessKey": given["secret"],
        "Token": given["token"],
        "Expiration": given["until"].strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
