"""Gives cloud-init the DMI tables of an instance, by which it knows EC2, where it has to ask for a session token.

A container has no tables, and what /sys may show is the host's.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/identify_ec2_instances.html
"""

import contextlib
from pathlib import Path

with contextlib.suppress(ImportError):
    from cloudinit import dmi

    uuid = f"ec2{Path('/etc/machine-id').read_text().strip()[3:]}"
    uuid = "-".join((uuid[:8], uuid[8:12], uuid[12:16], uuid[16:20], uuid[20:]))
    dmi.read_dmi_data = {
        "system-uuid": uuid,
        "system-serial-number": uuid,
        "system-manufacturer": "Amazon EC2",
    }.get
