#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation; the action plugin of this name does the work, always on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: manifest
short_description: Apply a set of Kubernetes objects
description:
  - Renders the objects on the controller, applies them as one set by server-side apply, removes objects that are no longer in the set and
    waits until the applied objects are ready.
  - It runs on the controller, whatever host the task is for, and does not connect to the host. Use C(run_once) if the play has many hosts.
  - Objects are applied in the order namespaces, custom resource definitions, policies and classes, service accounts and RBAC, configuration, services,
    workloads, the rest; objects of one rank at the same time. They are removed in the reverse order.
  - What a HorizontalPodAutoscaler of the set scales gets the given C(spec.replicas) only when it is made. Later it keeps the number that it has,
    within the autoscaler's bounds.
  - Every object gets the label C(k8sgu.io/set=<name>). The set's inventory is the ConfigMap C(k8sgu-set-<name>) in the namespace C(kube-system).
version_added: 0.1.0
author:
  - The k8sgu authors (@k8sgu)
extends_documentation_fragment:
  - k8sgu.cluster.controller
seealso:
  - name: Server-Side Apply
    description: How fields are owned and what a conflict is.
    link: https://kubernetes.io/docs/reference/using-api/server-side-apply/
attributes:
  check_mode:
    support: full
    description: Uses the API server's dry run. If an object's namespace or definition is itself only predicted, the object is predicted as new.
  diff_mode:
    support: full
    description: Shows each object before and after, without the fields that the server sets. Values of Secrets are never shown.
  idempotent:
    support: full
    description: An object counts as changed if the API server stored a new version.
options:
  kubeconfig:
    description: Kubeconfig file on the controller, with a client certificate or a token.
    type: path
    required: true
  context:
    description: Context of the kubeconfig, by default its current one.
    type: str
  name:
    description: Name of the set, a DNS label. Sets do not affect each other.
    type: str
    required: true
  template:
    description:
      - Jinja templates of YAML documents, found like those of M(ansible.builtin.template).
      - One of O(template), O(src) and O(definition) is required with O(state=present); they can be combined.
    type: list
    elements: path
  src:
    description: Files or directories (their C(*.yml), C(*.yaml) and C(*.json)) of YAML documents on the controller, used unchanged.
    type: list
    elements: path
  definition:
    description: Objects, each a dictionary or a string of YAML documents.
    type: list
    elements: raw
  vars:
    description: Additional variables for the templates.
    type: dict
    default: {}
  namespace:
    description: Namespace of namespaced objects that name none.
    type: str
    default: default
  state:
    description: V(absent) removes the whole set, that is all objects in its inventory and those given here, and waits until they are gone.
    type: str
    choices: [present, absent]
    default: present
  prune:
    description: Whether to remove objects that are in the set's inventory and no longer given.
    type: bool
    default: true
  wait:
    description:
      - Whether to wait until the given objects are ready.
      - Deployments, DaemonSets and StatefulSets are rolled out, Jobs complete, Pods ready, custom resource definitions established,
        API services available, namespaces active, persistent volume claims bound (unless their class waits for a consumer). A Job that failed ends the wait.
      - Failed pods of a DaemonSet are deleted if their node is ready again, since its controller may wait for 15 minutes before it retries.
      - If something is not ready in time, the error explains it by its pods, their events and their nodes, without values of the set's Secrets.
    type: bool
    default: true
  wait_timeout:
    description: Seconds to wait until objects are ready, or until removed ones are gone.
    type: int
    default: 120
  request_timeout:
    description: Seconds that the API server may be unreachable or answer that it is overloaded before the task fails.
    type: int
    default: 30
  force_conflicts:
    description: Whether to overwrite fields that another manager owns, such as C(spec.replicas) after C(kubectl scale).
    type: bool
    default: false
  take_over:
    description: Whether to move objects from another set to this one.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Cluster DNS
  run_once: true
  k8sgu.cluster.manifest:
    kubeconfig: "{{ k8sgu_state_dir }}/admin.kubeconfig"
    name: cluster-dns
    template:
      - coredns.yml.j2

- name: A namespace and its quota
  run_once: true
  k8sgu.cluster.manifest:
    kubeconfig: "{{ k8sgu_state_dir }}/admin.kubeconfig"
    name: team-a
    definition:
      - apiVersion: v1
        kind: Namespace
        metadata:
          name: team-a
      - apiVersion: v1
        kind: ResourceQuota
        metadata:
          name: quota
          namespace: team-a
        spec:
          hard:
            pods: "20"

- name: Remove the set again
  run_once: true
  k8sgu.cluster.manifest:
    kubeconfig: "{{ k8sgu_state_dir }}/admin.kubeconfig"
    name: team-a
    state: absent
"""

RETURN = r"""
objects:
  description: Each object of the set and each removed one, in the order of execution.
  type: list
  elements: dict
  returned: success
  contains:
    object:
      description: Kind, namespace and name.
      type: str
      returned: always
      sample: Deployment kube-system/coredns
    action:
      description: V(created), V(configured), V(unchanged) or V(deleted).
      type: str
      returned: always
    seconds_to_ready:
      description: Seconds until it was ready.
      type: float
      returned: when it was waited for
server_version:
  description: Version of the API server.
  type: str
  returned: success
  sample: v1.36.4
"""
