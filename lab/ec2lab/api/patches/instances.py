"""Instances: one launch per client token, EC2's own checks before a launch, and states that follow the machines.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.instances import Instance, InstanceBackend, InstanceState, StateReason
from moto.ec2.responses.instances import InstanceResponse

from ec2lab.api.backends import iam
from ec2lab.api.errors import error
from ec2lab.api.patches import machines
from ec2lab.api.patches.addresses import check_private
from ec2lab.api.patches.interfaces import check_groups
from ec2lab.api.patches.volumes import complete_mappings

STATES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
USER_DATA_LIMIT = 16384
# Options of the metadata service: moto's argument, and the attribute in which it keeps it.
METADATA_OPTIONS = {
    "http_tokens": "http_tokens",
    "hop_limit": "http_put_response_hop_limit",
    "http_endpoint": "http_endpoint",
    "http_protocol": "http_protocol_ipv6",
    "metadata_tags": "instance_metadata_tags",
}
# The lab's own: an instance that is launched with this tag is a cloud image at its first boot, with cloud-init and
# APT's timers and without what such images lack; the value: for how many seconds after SSH answers APT is locked.
FIRST_BOOT_TAG = "ec2lab:first-boot"


def set_state(instance: Any, name: str) -> Any:
    """Sets the state and returns the previous one."""
    previous = copy.copy(instance._state)
    instance._state = InstanceState(name, STATES[name])
    return previous


def user_reason(action: str) -> tuple[str, Any]:
    when = utcnow().strftime("%Y-%m-%d %H:%M:%S GMT")
    code = f"Client.UserInitiated{action}"
    return f"User initiated ({when})", StateReason(f"{code}: User initiated {action.lower()}", code)


def finish_termination(instance: Any) -> None:
    """Called when the machine is gone: deletes the interfaces and volumes that go with it and frees its addresses."""
    backend = instance.ec2_backend
    for address in backend.addresses:
        if address.instance is instance or (address.eni and address.eni.instance is instance):
            address.instance = address.eni = address.association_id = None
    for eni in list(instance.nics.values()):
        eni.public_ip = None
        # A terminated instance still shows its groups, but no address.
        instance.__dict__["launch_groups"] = list(eni._group_set)
        instance.detach_eni(eni)
        if eni.delete_on_termination:
            backend.enis.pop(eni.id, None)
    instance.teardown_defaults()
    association = backend.iam_instance_profile_associations.get(instance.id)
    if association:
        backend.disassociate_iam_instance_profile(association_id=association.association_id)
    instance._subnet_id = None
    instance.terminated_at = utcnow()
    set_state(instance, "terminated")


def check_launch(backend: Any, image_id: str | None, user_data: Any, kwargs: dict[str, Any]) -> None:
    """Makes the checks that EC2 makes before it launches anything; raises EC2's error."""
    check_image_and_type(backend, image_id, kwargs)
    machines.check((kwargs.get("tags") or {}).get("instance") or {})
    key_name = kwargs.get("key_name")
    if key_name and key_name not in backend.key_pairs:
        raise error("InvalidKeyPair.NotFound", f"The key pair '{key_name}' does not exist")
    if user_data and len(base64.b64decode(str(user_data))) > USER_DATA_LIMIT:
        raise error("InvalidParameterValue", f"User data is limited to {USER_DATA_LIMIT} bytes")
    options = kwargs.get("metadata_options") or {}
    hops = options.get("HttpPutResponseHopLimit")
    if hops is not None and not 1 <= int(hops) <= 64:
        raise error("InvalidParameterValue", "The HttpPutResponseHopLimit must be between 1 and 64")
    for option, allowed in (("HttpTokens", ("optional", "required")), ("HttpEndpoint", ("enabled", "disabled"))):
        if options.get(option, allowed[0]) not in allowed:
            raise error("InvalidParameterValue", f"Value ({options[option]}) for parameter {option} is invalid.")
    locked = (kwargs.get("tags") or {}).get("instance", {}).get(FIRST_BOOT_TAG, "0")
    if not re.fullmatch(r"\d{1,4}", locked):
        raise error("InvalidParameterValue", f"{FIRST_BOOT_TAG}={locked}: must be a number of seconds, such as 0 or 60")


def check_image_and_type(backend: Any, image_id: str | None, kwargs: dict[str, Any]) -> None:
    if not image_id and not kwargs.get("launch_template"):
        raise error("MissingParameter", "The request must contain the parameter ImageId")
    template = backend._get_template_from_args(kwargs["launch_template"]).data if kwargs.get("launch_template") else {}
    image_id = image_id or template.get("ImageId")
    image = backend.describe_images(ami_ids=[image_id])[0]
    instance_type = kwargs["instance_type"]
    if kwargs.get("is_instance_type_default"):
        instance_type = template.get("InstanceType", instance_type)
    described = INSTANCE_TYPES.get(instance_type)
    if described is None:
        raise error("InvalidParameterValue", f"Invalid value '{instance_type}' for InstanceType.")
    architectures = described.get("ProcessorInfo", {}).get("SupportedArchitectures", [])
    if image.architecture not in architectures:
        raise error(
            "InvalidParameterValue",
            f"The architecture '{','.join(architectures)}' of the specified instance type does not match the "
            f"architecture '{image.architecture}' of the specified AMI. Specify an instance type and an AMI that have "
            "matching architectures, and try again.",
        )


def check_network(backend: Any, count: int, kwargs: dict[str, Any], group_names: list[str]) -> None:
    """Checks subnet, addresses and groups of the primary interface, and fills in the defaults."""
    nics = kwargs.get("nics") or []
    primary: dict[str, Any] = next((nic for nic in nics if int(nic.get("DeviceIndex", 0)) == 0), {})
    if primary.get("NetworkInterfaceId"):
        return
    subnet_id = kwargs.get("subnet_id") or primary.get("SubnetId")
    if not subnet_id:
        zone = kwargs.get("placement")
        if zone and zone not in {each.name for each in backend.describe_availability_zones()}:
            raise error("InvalidParameterValue", f"Invalid availability zone: [{zone}]")
        defaults = [
            subnet for where, subnet in sorted(backend.get_default_subnets().items()) if not zone or where == zone
        ]
        if not defaults:
            place = f" in the availability zone '{zone}'" if zone else ""
            raise error("MissingInput", f"No subnets found for the default VPC{place}. Please specify a subnet.")
        subnet_id = defaults[0].id
        if primary:
            primary["SubnetId"] = subnet_id
        else:
            kwargs["subnet_id"] = subnet_id
    subnet = backend.get_subnet(subnet_id)
    if kwargs.get("placement") and kwargs["placement"] != subnet.availability_zone:
        raise error(
            "InvalidParameterValue",
            f"The availability zone '{kwargs['placement']}' is not that of subnet '{subnet_id}', "
            f"{subnet.availability_zone}.",
        )
    address = kwargs.get("private_ip") or primary.get("PrivateIpAddress")
    if address:
        if count > 1:
            raise error(
                "InvalidParameterCombination",
                "A private IP address can be given to a single instance only; the count is more than one.",
            )
        check_private(subnet, address)
    for nic in nics:
        nic.setdefault("DeleteOnTermination", True)
    group_ids = [group for group in kwargs.get("security_group_ids") or [] if isinstance(group, str)]
    check_groups(backend, [*group_ids, *primary.get("Groups", [])], subnet.vpc_id, subnet.id)
    if not group_ids and not group_names and not primary.get("Groups"):
        kwargs["security_group_ids"] = [backend.get_default_security_group(subnet.vpc_id).id]


def fingerprint(
    image_id: str | None, count: tuple[int, int], user_data: Any, group_names: list[str], kwargs: Any
) -> str:
    """The parameters in which two launches with the same client token must agree."""
    plain = {key: value for key, value in kwargs.items() if key != "client_token"}
    text = json.dumps([image_id, count, str(user_data), group_names, plain], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def install() -> None:
    _install_launch()
    _install_states()
    _install_responses()


def _install_launch() -> None:
    launch = InstanceBackend.run_instances
    initialise = Instance.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        initialise(self, *args, **kwargs)
        set_state(self, "pending")
        self.state_reason = None  # in EC2 only stopped instances have one
        for eni in self.nics.values():
            if not kwargs.get("nics"):
                eni.delete_on_termination = True

    def run_instances(
        self: Any, image_id: str, count: Any, user_data: Any, security_group_names: list[str], **kwargs: Any
    ) -> Any:
        # Auto Scaling and spot requests pass a single number here.
        least, most = count if isinstance(count, tuple) else (count, count)
        token = kwargs.get("client_token")
        print_ = fingerprint(image_id, (least, most), user_data, security_group_names, kwargs)
        launches: dict[str, tuple[str, str]] = self.__dict__.setdefault("launches", {})
        if token and token in launches:
            before, reservation_id = launches[token]
            if before != print_:
                raise error(
                    "IdempotentParameterMismatch",
                    "The request uses the same client token as a previous, but non-identical request.",
                )
            return self.reservations[reservation_id]
        if not 1 <= least <= most:
            raise error(
                "InvalidParameterValue", f"Value ({least}) for parameter minCount is invalid; maxCount is {most}."
            )
        kwargs.setdefault("instance_type", "m1.small")
        kwargs.setdefault("is_instance_type_default", False)
        check_launch(self, image_id, user_data, kwargs)
        check_network(self, most, kwargs, security_group_names)
        complete_mappings(self, image_id, kwargs)
        reservation = launch(self, image_id, most, user_data, security_group_names, **kwargs)
        for instance in reservation.instances:
            machines.kind(instance)  # recorded now, before the tags can change
        if token:
            launches[token] = (print_, reservation.id)
        return reservation

    Instance.__init__ = __init__
    InstanceBackend.run_instances = run_instances


def _install_states() -> None:
    def start(self: Any) -> Any:
        if self.state in ("pending", "running"):
            return copy.copy(self._state)
        if self.state != "stopped":
            raise error(
                "IncorrectInstanceState",
                f"The instance '{self.id}' is not in a state from which it can be started.",
            )
        for eni in self.nics.values():
            eni.start()
        self._reason, self.state_reason = "", None
        return set_state(self, "pending")

    def stop(self: Any) -> Any:
        if self.state in ("stopping", "stopped"):
            return copy.copy(self._state)
        if self.state not in ("pending", "running"):
            raise error(
                "IncorrectInstanceState",
                f"The instance '{self.id}' is not in a state from which it can be stopped.",
            )
        self._reason, self.state_reason = user_reason("Shutdown")
        return set_state(self, "stopping")

    def terminate(self: Any) -> Any:
        if self.state in ("shutting-down", "terminated"):
            return copy.copy(self._state)
        self._reason, self.state_reason = user_reason("Shutdown")
        return set_state(self, "shutting-down")

    def reboot(self: Any) -> None:
        if self.state in ("shutting-down", "terminated", "stopping", "stopped"):
            raise error(
                "IncorrectInstanceState",
                f"The instance '{self.id}' is not in a state from which it can be rebooted.",
            )
        self.reboots_wanted = getattr(self, "reboots_wanted", 0) + 1

    def no_finaliser(self: Any) -> None:
        """Replaces moto's finaliser, which frees an address that another instance may have by now."""

    modify = InstanceBackend.modify_instance_attribute
    stopped_only = {"instance_type", "user_data", "kernel", "ramdisk", "ebs_optimized"}

    def modify_instance_attribute(self: Any, instance_id: str, key: str, value: Any) -> Any:
        instance = self.get_instance(instance_id)
        if key in stopped_only and instance.state != "stopped":
            raise error(
                "IncorrectInstanceState",
                f"The instance '{instance_id}' is not in the 'stopped' state.",
            )
        if key == "instance_type" and value not in INSTANCE_TYPES:
            raise error("InvalidParameterValue", f"Invalid value '{value}' for InstanceType.")
        return modify(self, instance_id, key, value)

    modify_metadata = InstanceBackend.modify_instance_metadata_options

    def modify_instance_metadata_options(self: Any, instance_id: str, **given: Any) -> Any:
        """What a call does not name stays; moto has nothing in its place.

        https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyInstanceMetadataOptions.html
        """
        there = self.get_instance(instance_id).metadata_options
        for name, attribute in METADATA_OPTIONS.items():
            if given.get(name) is None:
                given[name] = getattr(there, attribute)
        return modify_metadata(self, instance_id, **given)

    def of_primary(attribute: str) -> property:
        """A property that reads the primary interface; None once the instance is terminated."""
        return property(lambda self: getattr(self.nics.get(0), attribute, None))

    dns_name = Instance.private_dns_name

    Instance.private_ip = Instance.private_ip_address = of_primary("private_ip_address")
    Instance.public_ip = Instance.public_ip_address = of_primary("public_ip")
    Instance.private_dns_name = property(lambda self: dns_name.fget(self) if self.private_ip else "")
    Instance.start, Instance.stop, Instance.terminate, Instance.reboot = start, stop, terminate, reboot
    Instance.__del__ = no_finaliser
    InstanceBackend.modify_instance_attribute = modify_instance_attribute
    InstanceBackend.modify_instance_metadata_options = modify_instance_metadata_options


def _install_responses() -> None:
    """Makes responses state the real values where moto writes constants."""

    def changes(name: str, call: str) -> Any:
        def respond(self: Any) -> Any:
            instance_ids = self._get_param("InstanceIds", [])
            backend = self.ec2_backend
            # Check every id before changing the first instance.
            backend.get_multi_instances_by_id(instance_ids)
            self.error_on_dryrun()
            changed = getattr(backend, call)(instance_ids)
            items = [
                {"InstanceId": instance.id, "CurrentState": instance._state, "PreviousState": previous}
                for instance, previous in changed
            ]
            if call == "terminate_instances":
                _forget_terminated(self, instance_ids)
            return ActionResult({name: items})

        return respond

    InstanceResponse.terminate_instances = changes("TerminatingInstances", "terminate_instances")
    InstanceResponse.stop_instances = changes("StoppingInstances", "stop_instances")
    InstanceResponse.start_instances = changes("StartingInstances", "start_instances")

    answer = InstanceResponse.run_instances

    def run_instances(self: Any) -> Any:
        """Reads MaxCount too, and sets the profile on every instance; moto reads MinCount and sets it on the first."""
        params = {key: self._get_param(key) for key in ("MinCount", "MaxCount")}
        profile = self._get_param("IamInstanceProfile") or {}
        if profile:
            find_profile(profile)
        backend = self.ec2_backend
        inner = backend.run_instances
        least, most = int(params["MinCount"] or 1), int(params["MaxCount"] or 1)
        token = self._get_param("ClientToken")

        def with_counts(image_id: str, _count: int, user_data: Any, names: list[str], **kwargs: Any) -> Any:
            kwargs["client_token"] = token
            reservation = inner(image_id, (least, most), user_data, names, **kwargs)
            for instance in reservation.instances:
                # When a request is replayed, they are associated already.
                if profile and instance.id not in backend.iam_instance_profile_associations:
                    backend.associate_iam_instance_profile(
                        instance_id=instance.id, iam_instance_profile_name=find_profile(profile).name
                    )
            return reservation

        backend.__dict__["run_instances"] = with_counts
        original = self._get_param

        def without_profile(name: str, *args: Any, **kwargs: Any) -> Any:
            return None if name.startswith("IamInstanceProfile") else original(name, *args, **kwargs)

        self._get_param = without_profile
        try:
            return answer(self)
        finally:
            del backend.__dict__["run_instances"]

    InstanceResponse.run_instances = run_instances


def find_profile(wanted: dict[str, str]) -> Any:
    """The instance profile named by `Name` or `Arn`."""
    for profile in iam().instance_profiles.values():
        if profile.name == wanted.get("Name") or (wanted.get("Arn") and profile.arn == wanted["Arn"]):
            return profile
    given = wanted.get("Arn") or wanted.get("Name")
    kind = "arn" if wanted.get("Arn") else "name"
    raise error(
        "InvalidParameterValue",
        f"Value ({given}) for parameter iamInstanceProfile.{kind} is invalid. Invalid IAM Instance Profile {kind}",
    )


def _forget_terminated(response: Any, instance_ids: list[str]) -> None:
    """Removes terminated instances from the services that hold them, as moto's own response does."""
    from moto.autoscaling import autoscaling_backends
    from moto.elbv2 import elbv2_backends

    autoscaling_backends[response.current_account][response.region].notify_terminate_instances(instance_ids)
    elbv2_backends[response.current_account][response.region].notify_terminate_instances(instance_ids)
