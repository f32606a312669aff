"""Keeps an instance's security groups and source/destination check on its primary interface only.

This is how EC2 does it: the instance shows its interface's values. moto keeps two copies, which drift apart.
"""

from __future__ import annotations

from typing import Any

from moto.ec2.models import NetworkInterfaceBackend
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.instances import Instance, InstanceBackend

from ec2lab.api.errors import error
from ec2lab.api.patches.addresses import check_private, next_private


def is_true(value: Any) -> bool:
    return str(value).lower() == "true"


def check_groups(backend: Any, group_ids: list[str], vpc_id: str, subnet_id: str) -> list[Any]:
    """The groups with these ids, which must belong to the subnet's VPC."""
    groups = []
    for group_id in group_ids:
        group = backend.get_security_group_from_id(group_id)
        if group is None:
            raise error("InvalidGroup.NotFound", f"The security group '{group_id}' does not exist")
        if group.vpc_id != vpc_id:
            raise error(
                "InvalidParameter",
                f"Security group {group_id} and subnet {subnet_id} belong to different networks.",
            )
        groups.append(group)
    return groups


def install() -> None:
    create = NetworkInterfaceBackend.create_network_interface

    def create_network_interface(
        self: Any,
        subnet: Any,
        private_ip_address: Any,
        private_ip_addresses: Any = None,
        group_ids: Any = None,
        **kwargs: Any,
    ) -> Any:
        if isinstance(subnet, str):
            subnet = self.get_subnet(subnet)
        if isinstance(private_ip_address, list):
            private_ip_address = private_ip_address[0] if private_ip_address else ""
        wanted = [
            item if isinstance(item, str) else item.get("PrivateIpAddress", "") for item in private_ip_addresses or []
        ]
        for address in {*([private_ip_address] if private_ip_address else []), *filter(None, wanted)}:
            check_private(subnet, address)
        if not private_ip_address and not wanted:
            private_ip_address = next_private(subnet)
        check_groups(self, list(group_ids or []), subnet.vpc_id, subnet.id)
        return create(self, subnet, private_ip_address, private_ip_addresses, group_ids=group_ids, **kwargs)

    def modify_network_interface_attribute(
        self: Any, eni_id: str, group_ids: list[str], source_dest_check: Any = None, description: str | None = None
    ) -> None:
        eni = self.get_network_interface(eni_id)
        if group_ids:
            eni._group_set = check_groups(self, group_ids, eni.vpc_id, eni.subnet_id)
        if source_dest_check is not None:
            eni.source_dest_check = is_true(source_dest_check)
        if description is not None:
            eni.description = description

    delete = NetworkInterfaceBackend.delete_network_interface

    def delete_network_interface(self: Any, eni_id: str) -> None:
        eni = self.get_network_interface(eni_id)
        if eni.attachment_id:
            raise error("InvalidParameterValue", f"Network interface '{eni_id}' is currently in use.")
        if eni.requester_managed:
            raise error("OperationNotPermitted", f"You do not have permission to access '{eni_id}'.")
        delete(self, eni_id)

    NetworkInterfaceBackend.create_network_interface = create_network_interface
    NetworkInterfaceBackend.modify_network_interface_attribute = modify_network_interface_attribute
    NetworkInterfaceBackend.delete_network_interface = delete_network_interface
    NetworkInterface.group_set = property(lambda self: list(self._group_set))

    def primary(instance: Any) -> Any:
        return getattr(instance, "nics", {}).get(0)

    def get_check(self: Any) -> bool:
        eni = primary(self)
        return eni.source_dest_check if eni else True

    def set_check(self: Any, value: Any) -> None:
        if eni := primary(self):
            eni.source_dest_check = is_true(value)

    def get_groups(self: Any) -> list[Any]:
        eni = primary(self)
        return list(eni._group_set) if eni else self.__dict__.get("launch_groups", [])

    def set_groups(self: Any, groups: list[Any]) -> None:
        if eni := primary(self):
            eni._group_set = list(groups)
        else:
            self.__dict__["launch_groups"] = list(groups)

    Instance.source_dest_check = property(get_check, set_check)
    Instance.security_groups = property(get_groups, set_groups)

    def modify_instance_security_groups(self: Any, instance_id: str, new_group_id_list: list[str]) -> Any:
        instance = self.get_instance(instance_id)
        instance.security_groups = check_groups(self, new_group_id_list, instance.vpc_id, instance.subnet_id)
        return instance

    InstanceBackend.modify_instance_security_groups = modify_instance_security_groups
