# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where clients outside reach a load balancer: by its DNS name, or by address where no public name server has it."""

from __future__ import annotations

from urllib.parse import urlsplit

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import session
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.balancer.load_balancer import LoadBalancer
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader

AWS_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")


def of_aws(endpoint: str) -> bool:
    """Whether an endpoint of the EC2 API is AWS's own. Then load balancers have names in the public DNS."""
    return (urlsplit(endpoint).hostname or "").endswith(AWS_DOMAINS)


def host(reader: Reader, balancer: LoadBalancer) -> str:
    """The DNS name; where EC2 is not AWS's, as in a lab, the public address of the balancer's interface.

    AWS on how to find that interface by its description:
    https://repost.aws/knowledge-center/elb-find-load-balancer-IP
    Raises AwsError.
    """
    if of_aws(reader.client("ec2").meta.endpoint_url):
        return balancer.dns_name
    description = "ELB " + balancer.arn.partition(":loadbalancer/")[2]
    filters = [{"Name": "description", "Values": [description]}]
    try:
        items = reader.pages("ec2", "describe_network_interfaces", "NetworkInterfaces", Filters=filters)
    except session.AwsError as error:
        # AWS itself is never asked, so the policy does not have the action. Without it the name has to do.
        if error.__cause__ is not None and session.error_code(error.__cause__) in session.DENIED_CODES:
            return balancer.dns_name
        raise
    found = [item.get("Association", {}).get("PublicIp", "") for item in items]
    return min(filter(None, found), default=balancer.dns_name)
