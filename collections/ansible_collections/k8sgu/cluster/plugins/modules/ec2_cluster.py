#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ec2_cluster
short_description: Create, change or remove everything a cluster needs on EC2
version_added: 0.1.0
description:
  - Compares the description of a cluster with the AWS account and carries out the difference, which is the RV(plan).
  - Creates a VPC, subnets in each zone, an internet gateway (and NAT gateways for private nodes), route tables, security
    groups from the collection's port table, a key pair, IAM roles with instance profiles, instances, pod routes and,
    for more than one control-plane node, a network load balancer, and an S3 bucket for backups (O(backup_bucket)).
  - Everything that it creates carries the tag C(k8sgu.io/cluster/<name>=owned) from its creation on. It is found again by
    that tag, and nothing without it is ever removed. IAM roles also have the path C(/k8sgu/<region>/<name>/).
  - Nodes are named C(<name>-control-plane-<n>), C(<name>-worker-<n>) and, in further pools, C(<name>-<pool>-<n>).
    EC2 chooses their private addresses. When a pool's count shrinks, the nodes of the highest numbers are removed.
  - Client tokens are made from the cluster, the node's name and the instances of that name that ended before. So a call
    that is repeated after a lost answer or a killed run does not launch an instance twice.
  - Nothing is open to 0.0.0.0/0 unless O(admin_cidrs) or O(node_port_cidrs) say so. Outgoing traffic is not restricted.
  - Instances require IMDSv2 with a hop limit of 1, have encrypted gp3 volumes and no source/destination check, which
    pod addresses would not pass.
extends_documentation_fragment:
  - k8sgu.cluster.aws
attributes:
  check_mode:
    support: full
    description: The plan is made and returned in full, also on an empty account; nothing is changed.
  diff_mode:
    support: full
    description: The diff is the plan, one line for each step.
  idempotent:
    support: full
    description: With nothing to do the plan is empty.
options:
  name:
    description:
      - The cluster's name, 1 to 28 lower-case letters, digits and dashes, a letter first and no dash last. It is part of host
        names, of IAM's names and of the load balancer's name, which has 32 characters.
    type: str
    required: true
  state:
    description:
      - V(absent) removes everything that the cluster's tag marks but O(backup_bucket), in order, and waits until nothing is left.
      - V(compared) changes nothing, in check mode or not. It returns RV(plan), and as RV(differences) also what the plan leaves alone.
    type: str
    choices: [present, absent, compared]
    default: present
  vpc_id:
    description:
      - An existing VPC to build in. It is not removed, and not changed otherwise.
    type: str
  vpc_cidr:
    description:
      - The range of the VPC to create, between /16 and /28. With O(vpc_id) the existing VPC's own ranges count; another value
        than the default must be one of them.
    type: str
    default: 10.240.0.0/16
  zones:
    description:
      - Availability zones to spread the nodes over in turn. Without any, the first zone of the region that offers every
        instance type; once there are subnets, their zones.
    type: list
    elements: str
    default: []
  subnet_ids:
    description:
      - Existing subnets for the nodes, one for each zone. Need O(vpc_id). Pod routes are written to their route tables,
        and removed from there again.
    type: list
    elements: str
    default: []
  subnet_prefix:
    description:
      - Prefix length of the subnets that are made.
    type: int
    default: 24
  private_nodes:
    description:
      - Nodes without public addresses. They reach the internet as O(nat_gateways) says.
    type: bool
    default: false
  nat_gateways:
    description:
      - NAT gateways for private nodes, V(one) for all zones, one V(per_zone), or V(none).
    type: str
    choices: [one, per_zone, none]
    default: one
  pod_cidr:
    description:
      - The range of the pods. Each node gets a part of it, kept in the tag C(k8sgu.io/pod-cidr).
    type: str
    default: 10.200.0.0/16
  pod_cidr_node_prefix:
    description:
      - Prefix length of a node's part of O(pod_cidr).
    type: int
    default: 24
  service_cidr:
    description:
      - The range of the services. AWS does not see it; it must not overlap the others.
    type: str
    default: 10.32.0.0/16
  pod_network:
    description:
      - V(routed) gives the VPC one route for each node's pods, V(vxlan) opens UDP 8472 between nodes instead.
    type: str
    choices: [routed, vxlan]
    default: routed
  pod_route_tables:
    description:
      - Route tables of an existing VPC (O(vpc_id)) that get the routes to pods too, beside those of the nodes' subnets. Pods
        then show their own addresses in the subnets that use these tables, and can be connected to from there.
      - Everywhere else in the VPC a pod has its node's address. Only for O(pod_network=routed).
    type: list
    elements: str
    default: []
  admin_cidrs:
    description:
      - Ranges that may reach SSH and the API server from outside. Empty means nobody.
      - With private ranges alone, administrators are in the VPC or connected to it, and RV(addresses) and RV(api_endpoint) are private.
    type: list
    elements: str
    default: []
  node_port_cidrs:
    description:
      - Ranges that may reach NodePort services (30000-32767, TCP and UDP) from outside.
    type: list
    elements: str
    default: []
  key_name:
    description:
      - An existing key pair for SSH. It is neither created nor removed.
    type: str
  public_key:
    description:
      - An OpenSSH public key (C(ssh-ed25519) or C(ssh-rsa)) to import as the cluster's key pair.
    type: str
  public_key_file:
    description:
      - A file on the controller with such a key.
    type: path
  image:
    description:
      - The image (AMI) of all pools, an id (C(ami-...)) or a dictionary with C(owner) (account id or alias) and C(name)
        (a pattern with C(*)), of which the newest available one is launched. Nodes whose image matches the
        pattern stay when a newer one appears, and so do nodes whose image is deprecated or gone. New ones get a
        deprecated image only where there is no other.
      - Needed unless every pool has its own.
    type: raw
  pools:
    description:
      - The nodes by pool. Without it one control-plane node and two workers.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - V(control_plane), V(workers), or a name of your own for further workers.
        type: str
        required: true
      count:
        description:
          - How many nodes. The number of control-plane nodes is odd, since they are etcd's members. To have fewer of them
            takes several runs, each of which removes one, unless the cluster O(lives). The run that leaves one of them also
            removes the load balancer, but that of a cluster that lives stays, since everything there has its address.
        type: int
        required: true
      instance_type:
        description:
          - The EC2 instance type.
        type: str
        default: m5.large
      image:
        description:
          - As O(image), for this pool only.
        type: raw
      root_volume_size:
        description:
          - Size of the root volume in GiB.
        type: int
        default: 20
      etcd_volume_size:
        description:
          - Size in GiB of a volume of its own for etcd, device C(/dev/sdf), on nodes of V(control_plane). 0 for none.
        type: int
        default: 0
  kms_key_id:
    description:
      - The KMS key that encrypts volumes, and a bucket that is made for O(backup_bucket). Without it the account's default for EBS, and
        keys of S3 (SSE-S3).
    type: str
  backup_bucket:
    description:
      - The name of an S3 bucket for the cluster's backups, of which it holds C(<name>/etcd/) (snapshots of etcd) and C(<name>/state/)
        (the state directory). Empty for none. A name with dots is refused, since S3's certificate does not cover it.
      - A bucket that no account has is made in the region, with the cluster's tag, and kept like that. All public access is blocked,
        objects belong to the account, requests without TLS are refused, versioning is on, and it is encrypted by O(kms_key_id) or by keys of S3.
        Snapshots of etcd expire after O(backup_days), older versions of them 7 days later, and uploads that were not completed after 1 day.
      - A bucket of the account that does not have the cluster's tag was brought. It is used, and nothing of it is changed. It has to be in the region
        and have versioning on.
      - The control-plane nodes' role may put objects below C(<name>/etcd/), and use the bucket's key for that, but neither read, list nor
        remove any. So this needs O(instance_profiles=true).
      - O(state=absent) does not remove the bucket, and returns it in RV(kept_buckets). With another name, the old bucket stays too, and is not used any more.
    type: str
    default: ""
  backup_days:
    description:
      - After how many days snapshots of etcd expire in a bucket that was made, at most 36500. V(0) for never.
    type: int
    default: 30
  instance_profiles:
    description:
      - Create an IAM role with an instance profile for the control plane and one for workers. With V(false) instances have none and
        no permission for IAM is needed.
    type: bool
    default: true
  control_plane_policy:
    description:
      - A policy document for the control-plane nodes' role. By default its role allows nothing, but for the snapshots that
        O(backup_bucket) says.
    type: dict
  worker_policy:
    description:
      - The same for workers.
    type: dict
  load_balancer_scheme:
    description:
      - V(internet-facing) or V(internal). V(auto) is internet-facing where O(admin_cidrs) has public ranges, and nodes are public or
        the VPC is new.
      - Private nodes behind an internet-facing one have it with a single control-plane node too.
    type: str
    choices: [auto, internal, internet-facing]
    default: auto
  bastion:
    description:
      - Whether private nodes of a new VPC get a bastion if O(admin_cidrs) has public ranges. It is a small instance with a
        public address and the nodes' image and key, which hands SSH on to them and nothing else.
    type: bool
    default: true
  tags:
    description:
      - Further tags for everything that is created, 45 at most. Keys that begin with C(k8sgu.io/), C(aws:) or C(kubernetes.io/) are
        refused, and so is what IAM does not accept. A value is text or a whole number; put V(true) or C(1.10) in quotes.
    type: dict
    default: {}
  allow_replace:
    description:
      - Terminate nodes and launch them again where they cannot be changed in place (instance type, image, zone, key pair, encryption, a smaller volume).
        With V(false) such a change fails before anything is done.
      - At most one control-plane node, a member of etcd, is replaced in a run, and none while another one is missing or
        does not run. A warning names those that are left for the next run.
    type: bool
    default: false
  nodes_leave:
    description:
      - How to treat nodes that the description does not have any more, or that are replaced. Before they end, their pods have to
        be moved, which M(k8sgu.cluster.node_drain) does, and members of etcd removed from it, which
        M(k8sgu.cluster.etcd_member) does.
      - V(at_once) ends them, but refuses to end a control-plane node of a cluster that O(lives).
      - V(ask) changes nothing where there are such nodes, and returns them as RV(leaving). Control-plane nodes are among them if
        the cluster O(lives).
      - V(drained) ends those in O(drained). Others that would be replaced stay as they are, with a warning. Where another
        node would be removed, the run is refused before its first change.
      - Ignored with O(state=absent).
    type: str
    choices: [at_once, ask, drained]
    default: at_once
  drained:
    description: Names of the nodes that may end, with O(nodes_leave=drained).
    type: list
    elements: str
    default: []
  lives:
    description:
      - Whether the control-plane nodes are members of an etcd that has the cluster's data.
      - None of them ends then without being in O(drained), whatever O(allow_replace) says, and neither their volumes nor the
        load balancer are taken from them.
    type: bool
    default: false
  check_permissions:
    description:
      - Ask before the first change whether the caller may make the changes, and refuse the run with every permission
        that is missing and what it is missing on. With nothing to do nothing is asked.
      - EC2 answers that question (C(DryRun)) for many of its own calls. For the others, and for those of IAM and of load
        balancers, IAM's policy simulator is asked, for which the caller needs the permission
        C(iam:SimulatePrincipalPolicy) on itself. Without that, a permission that is missing for one of these calls shows
        only when the call is made. RV(permissions_checked_by) says who was asked.
      - The simulator does not know session policies, VPC endpoint policies and keys' policies. Where a policy asks for
        something that is not known beforehand, such as the caller's address, nothing is refused.
      - See U(https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_testing-policies.html).
      - V(false) is for a policy of your own with conditions that such questions do not fulfil.
    type: bool
    default: true
  wait_timeout:
    description:
      - Seconds to wait for each thing that takes time (an instance running, a NAT gateway available, a load balancer
        active or gone). After that the module fails and returns what was reached.
    type: int
    default: 600
author:
  - The k8sgu authors (@k8sgu)
"""

EXAMPLES = r"""
- name: See what would be created
  k8sgu.cluster.ec2_cluster:
    name: demo
    region: eu-central-1
    image: {owner: "136693071363", name: debian-12-amd64-*}
    public_key_file: ~/.ssh/id_ed25519.pub
    admin_cidrs: [203.0.113.7/32]
  check_mode: true
  diff: true

- name: Three control-plane nodes behind a load balancer, three workers, over three zones
  k8sgu.cluster.ec2_cluster:
    name: prod
    region: eu-central-1
    zones: [eu-central-1a, eu-central-1b, eu-central-1c]
    image: ami-0123456789abcdef0
    public_key_file: ~/.ssh/id_ed25519.pub
    admin_cidrs: [203.0.113.0/24]
    pools:
      - {name: control_plane, count: 3, instance_type: m5.large, etcd_volume_size: 20}
      - {name: workers, count: 3, instance_type: m5.xlarge, root_volume_size: 60}

- name: Remove the cluster
  k8sgu.cluster.ec2_cluster:
    name: demo
    region: eu-central-1
    state: absent
"""

RETURN = r"""
plan:
  description: The steps in order; in check mode those that would be carried out. Empty when there is nothing to do.
  returned: always
  type: list
  elements: dict
  contains:
    resource:
      description: What it is about, as kind and name.
      type: str
      sample: instance/demo-worker-0
    action:
      description: What is done to it, C(create), C(update), C(delete), C(replace) or C(attach) and C(detach).
      type: str
      sample: create
    reason:
      description: Why.
      type: str
      sample: the description has it and the account does not
differences:
  description:
    - What is not as described. Beside what RV(plan) would change that is routes and outgoing rules that others made, instances without
      our tag in our network, and what has our tag and is of no kind that this module makes.
  returned: when O(state=compared)
  type: list
  elements: dict
  contains:
    kind: {description: What differs., type: str, sample: rule-added}
    where: {description: The resource., type: str, sample: demo-worker}
    expected: {description: What there should be., type: str, sample: no rule of the port table}
    seen: {description: What there is., type: str, sample: "tcp 8080, 0.0.0.0/0"}
instances:
  description: Every instance with the cluster's tag that has not ended, each with C(name), C(instance_id), C(state), C(private_ip), C(role) and
    C(described), whether the description has it.
  returned: when O(state=compared)
  type: list
  elements: dict
described:
  description: The role of each node that the description has, and of the bastion, by name.
  returned: when O(state=compared)
  type: dict
  sample: {demo-control-plane-0: control_plane}
leaving:
  description:
    - The nodes that leave. Empty when all of them have left; after a failure those that were not told to end.
  returned: when O(state=present)
  type: list
  elements: dict
  contains:
    name: {description: The node's name., type: str, sample: demo-worker-1}
    role: {description: C(control_plane) or C(worker)., type: str, sample: worker}
    address: {description: Its private address., type: str, sample: 10.240.0.20}
    instance_id: {description: EC2's id., type: str, sample: i-0123456789abcdef0}
    returns: {description: Whether another instance takes its name., type: bool, sample: false}
    reason: {description: Why it leaves., type: str, sample: the description does not have it}
members:
  description: The names of all nodes that there will be.
  returned: when O(nodes_leave=ask) and there is something in RV(leaving)
  type: list
  elements: str
nodes:
  description: The nodes, in order of pool and number.
  returned: when O(state=present); in check mode those that exist already
  type: list
  elements: dict
  contains:
    name: {description: Node and host name., type: str, sample: demo-control-plane-0}
    role: {description: C(control_plane) or C(worker)., type: str, sample: control_plane}
    pool: {description: The pool., type: str, sample: control_plane}
    instance_id: {description: EC2's id., type: str, sample: i-0123456789abcdef0}
    instance_type: {description: The type., type: str, sample: m5.large}
    image_id: {description: The AMI., type: str, sample: ami-0123456789abcdef0}
    zone: {description: The availability zone., type: str, sample: eu-central-1a}
    subnet_id: {description: The subnet., type: str, sample: subnet-0123456789abcdef0}
    state: {description: EC2's state of it., type: str, sample: running}
    private_ip: {description: The private address., type: str, sample: 10.240.0.10}
    public_ip: {description: 'The public address, empty for none.', type: str, sample: 198.51.100.7}
    private_dns: {description: The private DNS name., type: str, sample: ip-10-240-0-10.ec2.internal}
    pod_cidr: {description: The node's part of the pod range., type: str, sample: 10.200.0.0/24}
addresses:
  description: By node, the address to reach it at (the public one where there is one).
  returned: when O(state=present)
  type: dict
  sample: {demo-control-plane-0: 198.51.100.7}
api_endpoint:
  description: Where clients find the API server.
  returned: when O(state=present) and it is known
  type: dict
  contains:
    host:
      description:
        - The load balancer's name or the one control-plane node's address.
        - Where the EC2 API is not AWS's own, the load balancer's public address, since no public name server has its name.
      type: str
      sample: 198.51.100.7
    private_host: {description: The same for clients inside the VPC., type: str, sample: 10.240.0.10}
    port: {description: The port., type: int, sample: 6443}
load_balancer:
  description: The load balancer's C(name), C(dns_name), C(arn) and C(scheme). Empty without one.
  returned: when O(state=present)
  type: dict
  sample: {}
bastion:
  description: The bastion's C(name), C(instance_id) and C(public_ip). Empty without one.
  returned: when O(state=present)
  type: dict
  sample: {}
backup_bucket:
  description: The bucket of O(backup_bucket). Empty without one.
  returned: when O(state=present)
  type: dict
  contains:
    name: {description: Its name., type: str, sample: demo-backups}
    origin: {description: 'V(made), also if it is yet to be made, or V(brought).', type: str, sample: made}
    region: {description: The region that it is in., type: str, sample: eu-central-1}
kept_buckets:
  description:
    - The buckets with the cluster's backups, which stay. Beside that of O(backup_bucket) one that the nodes' role names.
  returned: when O(state=absent)
  type: list
  elements: dict
  contains:
    name: {description: Its name., type: str, sample: demo-backups}
    origin: {description: 'V(made) or V(brought), also if the caller may not look at it.', type: str, sample: made}
    removal:
      description: A command that removes it with all that it holds, or the cluster's part of it if it was brought.
      type: str
      sample: python3 -c "import boto3; ..."
network:
  description: What the pod network has to know. Empty as long as there is no VPC.
  returned: when O(state=present)
  type: dict
  contains:
    vpc_cidrs: {description: "The VPC's ranges, the one it was made with first.", type: list, elements: str, sample: [10.240.0.0/16]}
    routed_cidrs: {description: The ranges of the subnets that use O(pod_route_tables)., type: list, elements: str, sample: []}
vpc_id:
  description: The VPC.
  returned: when it exists
  type: str
  sample: vpc-0123456789abcdef0
subnet_ids:
  description: The nodes' subnets.
  returned: when O(state=present)
  type: list
  elements: str
  sample: [subnet-0123456789abcdef0]
security_groups:
  description: The ids of the security groups by role.
  returned: when O(state=present)
  type: dict
  sample: {control_plane: sg-0123456789abcdef0, worker: sg-0fedcba9876543210}
billed:
  description:
    - What AWS bills by time, without traffic. What that costs differs by region, day and contract, see
      U(https://calculator.aws/).
  returned: when O(state=present)
  type: list
  elements: dict
  contains:
    what: {description: The thing., type: str, sample: m5.large (workers)}
    count: {description: How many., type: int, sample: 2}
iam_policy:
  description: The IAM policy document that is enough to create, change and remove what is described.
  returned: always
  type: dict
  sample: {Version: '2012-10-17', Statement: []}
permissions_checked_by:
  description:
    - Who was asked whether the caller may carry the plan out. V(simulation) is EC2, and IAM's policy simulator for what
      EC2 does not answer. V(dry_run) is EC2 alone, whose answers may cover only a part of the plan.
  returned: when there is something to do and O(check_permissions)
  type: str
  sample: simulation
reached:
  description: The steps that were carried out before the failure, as in RV(plan).
  returned: on failure
  type: list
  elements: dict
api_calls:
  description: How many calls of the AWS API were made, retries not counted.
  returned: always
  type: int
  sample: 11
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.run import MODULE
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import run_module


def main() -> None:
    run_module(MODULE)


if __name__ == "__main__":
    main()
