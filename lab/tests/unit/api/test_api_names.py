"""AWS's own names, at which the API answers inside a lab."""

from __future__ import annotations

from api_support import RunningApi

from ec2lab.api import translate
from ec2lab.api.patches.buckets import TAKEN


def test_endpoints_of_the_regions_in_use_and_buckets_that_exist(running_api: RunningApi) -> None:
    before = translate.aws_names()
    assert {"ec2.us-east-1.amazonaws.com", "sts.us-east-1.amazonaws.com", "iam.amazonaws.com"} <= before
    assert "s3.us-east-1.amazonaws.com" in before
    # Publishers have buckets under the same domain: their names are the host's to resolve.
    assert {name.partition(".s3.")[0] for name in before if ".s3." in name} == {TAKEN}
    assert not [name for name in before if ".eu-central-1." in name]
    running_api.client("s3").create_bucket(Bucket="files")
    made = translate.aws_names() - before
    assert {"files.s3.us-east-1.amazonaws.com", "files.s3.amazonaws.com"} <= made
    assert {name.partition(".")[0] for name in made} == {"files"}
