#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kubeconfig
short_description: Manages clusters, users and contexts in kubeconfig files
version_added: 0.1.0
description:
  - Merges clusters, users, contexts and the current context by name into a kubeconfig file, or into several.
  - Other entries, unknown fields, extensions and their order are kept. Comments are lost, as with C(kubectl config).
  - An option that is not given leaves its field unchanged. An empty string or list, or V(false), removes the field, so that its default applies.
  - Setting one of two fields that exclude each other, such as a referenced and an embedded certificate, removes the other.
  - A relative path of a file is relative to the directory in which the module runs, which on the controller is the playbook's. It is written as
    by C(kubectl config set-cluster) and C(set-credentials), relative to the kubeconfig's directory for a file below it, otherwise absolute.
    Two paths of the same file do not differ. Only O(users[].exec.command) is written unchanged.
author:
  - The k8sgu authors (@k8sgu)
requirements:
  - PyYAML
  - cryptography >= 42, if a client certificate and its key are set
attributes:
  check_mode:
    description: Can run in check mode and return what it would change. A file to embed may be missing then, since an earlier task may make it.
    support: full
  diff_mode:
    description: Shows the file before and after, with secrets masked and certificates as their SHA-256.
    support: full
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
options:
  path:
    description:
      - The kubeconfig file. It and missing parent directories are created, the directories with mode 0700.
      - A file that is not a kubeconfig is left untouched, and the task fails.
    type: path
  state:
    description:
      - V(present) merges the given entries into the file.
      - V(absent) removes the file. Single entries are removed by their own O(clusters[].state), O(users[].state) and O(contexts[].state).
    type: str
    choices: [present, absent]
    default: present
  clusters: &clusters
    description: Clusters, merged by name.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the cluster in this file.
        type: str
        required: true
      state:
        description: V(absent) removes the entry, which no remaining context may name.
        type: str
        choices: [present, absent]
        default: present
      server:
        description: Address of the API, such as V(https://10.0.0.1:6443). Needed for a new entry.
        type: str
      keep_server:
        description: Do not change the address of an entry that has one. O(clusters[].server) is then only for a new entry.
        type: bool
        default: false
      certificate_authority:
        description: File with the CA certificates that verify the server's. With O(embed_certs) its content is put into the file.
        type: path
      certificate_authority_data:
        description: The CA certificates themselves, as PEM text or base64 of it.
        type: str
      insecure_skip_tls_verify:
        description: Do not verify the server's certificate. Cannot be combined with a certificate authority.
        type: bool
      tls_server_name:
        description: Name expected in the server's certificate if it is not the one in O(clusters[].server).
        type: str
      proxy_url:
        description: Proxy for requests to this cluster, C(http), C(https) or C(socks5).
        type: str
      disable_compression:
        description: Ask the server not to compress its answers.
        type: bool
  users: &users
    description: Users, merged by name.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the user in this file.
        type: str
        required: true
      state:
        description: V(absent) removes the entry, which no remaining context may name.
        type: str
        choices: [present, absent]
        default: present
      client_certificate:
        description: File with the client certificate. With O(embed_certs) its content is put into the file.
        type: path
      client_certificate_data:
        description: The certificate itself, as PEM text or base64 of it.
        type: str
      client_key:
        description: File with the key that belongs to the client certificate, not encrypted. With O(embed_certs) its content is put into the file.
        type: path
      client_key_data:
        description: The key itself, as PEM text or base64 of it.
        type: str
      token:
        description: Bearer token.
        type: str
      token_file:
        description: File with a bearer token, which clients read again from time to time.
        type: path
      username:
        description: User name for basic authentication.
        type: str
      password:
        description: Password for basic authentication.
        type: str
      exec:
        description: >-
          Program that supplies credentials, see
          U(https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins).
        type: dict
        suboptions:
          api_version:
            description: Version of the exchange with the program.
            type: str
            default: client.authentication.k8s.io/v1
          command:
            description: >-
              The program, by its name on C(PATH) or by a path. For clients, a path with a slash is relative to the kubeconfig's directory,
              not to the working directory, and C(~) is not expanded.
            type: str
            required: true
          args:
            description: Its arguments.
            type: list
            elements: str
          env:
            description: Environment variables for it, in addition to the caller's. Values whose names look secret are kept out of the output.
            type: list
            elements: dict
            suboptions:
              name:
                description: Name of the variable.
                type: str
                required: true
              value:
                description: Its value.
                type: str
                required: true
          install_hint:
            description: Text shown if the program is missing.
            type: str
          interactive_mode:
            description: Whether the program may use standard input.
            type: str
            choices: [Never, IfAvailable, Always]
            default: IfAvailable
          provide_cluster_info:
            description: Pass the cluster's address and certificate authority to the program.
            type: bool
      impersonate:
        description: User to act as.
        type: str
      impersonate_uid:
        description: Uid to act as. Needs O(users[].impersonate).
        type: str
      impersonate_groups:
        description: Groups to act as. Needs O(users[].impersonate).
        type: list
        elements: str
      impersonate_extra:
        description: Extra attributes to act with, each a list of strings. Needs O(users[].impersonate).
        type: dict
  contexts: &contexts
    description: Contexts, merged by name. The cluster and user of each must exist.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the context.
        type: str
        required: true
      state:
        description: V(absent) removes the entry.
        type: str
        choices: [present, absent]
        default: present
      cluster:
        description: Name of a cluster.
        type: str
      user:
        description: Name of a user.
        type: str
      namespace:
        description: Namespace for requests that name none.
        type: str
  current_context: &current_context
    description: The context in use, which must exist. An empty string for none.
    type: str
  embed_certs: &embed_certs
    description: Put the content of the files named by certificate and key options into the kubeconfig instead of their paths.
    type: bool
    default: false
  kubeconfigs:
    description: Several files in one call. All are checked before the first is written.
    type: list
    elements: dict
    suboptions:
      path:
        description: As O(path).
        type: path
        required: true
      clusters: *clusters
      users: *users
      contexts: *contexts
      current_context: *current_context
      embed_certs: *embed_certs
  mode:
    description: Octal mode of the files.
    type: str
    default: "0600"
  owner:
    description: Name or number of the files' owner. By default an existing file keeps its own.
    type: str
  group:
    description: Name or number of the files' group, likewise.
    type: str
  backup:
    description: Keep a copy of each file that is replaced or removed.
    type: bool
    default: false
notes:
  - Files are written atomically. A killed run leaves the old file or the new one.
seealso:
  - name: The kubeconfig format
    description: Reference of every field.
    link: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

EXAMPLES = r"""
- name: Give the administrator access to the cluster by a certificate
  k8sgu.cluster.kubeconfig:
    path: ~/.kube/config
    embed_certs: true
    clusters:
      - name: demo
        server: https://api.demo.example:6443
        certificate_authority: pki/kubernetes-ca.pem
    users:
      - name: demo-admin
        client_certificate: pki/admin.pem
        client_key: pki/admin-key.pem
    contexts:
      - {name: demo, cluster: demo, user: demo-admin}
    current_context: demo

- name: Use credentials that a program supplies
  k8sgu.cluster.kubeconfig:
    path: ~/.kube/config
    users:
      - name: sso
        exec:
          command: aws-iam-authenticator
          args: [token, -i, demo]

- name: Remove a cluster
  k8sgu.cluster.kubeconfig:
    path: ~/.kube/config
    clusters: [{name: old, state: absent}]
    users: [{name: old, state: absent}]
    contexts: [{name: old, state: absent}]
    backup: true
"""

RETURN = r"""
changes:
  description: What was, or in check mode would be, changed, in words, each with the path before it.
  returned: success
  type: list
  elements: str
  sample: ["/root/.kube/config: user 'demo-admin': client-certificate-data differed"]
kubeconfigs:
  description: One entry for each file, in the order given.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The file.
      type: str
    changed:
      description: Whether it was, or in check mode would be, changed.
      type: bool
    changes:
      description: What was changed.
      type: list
      elements: str
    contexts:
      description: Names of all contexts in the file.
      type: list
      elements: str
    current_context:
      description: The context in use, empty if there is none.
      type: str
    backup_file:
      description: Backup of the old file, if one was made.
      type: str
backup_file:
  description: The same, if one file was given.
  returned: where a copy was made
  type: str
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.run import MODULE
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import run_module


def main() -> None:
    run_module(MODULE)


if __name__ == "__main__":
    main()
