#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Places programs, users, files and units on a node in one remote execution."""

from __future__ import annotations

DOCUMENTATION = r"""
module: component
short_description: Install and run a component of a node in one remote execution
description:
  - A component consists of programs from the mirror, a system user, directories, files, links, systemd units and a health check.
  - Templates are rendered and files are read on the controller; everything else happens in one execution of the module on the node,
    for any number of components, in the given order.
  - A unit is restarted only if something that it was started with has changed. What it was started with is recorded when it is
    healthy, so the next run completes one that was interrupted between writing a file and restarting the unit.
  - When a changed component does not become healthy, its files, links and units are restored and the old programs are
    started again.
  - With pipelining, the node keeps the module's compiled code in C(/var/lib/k8sgu/python), which is several times as fast as sending
    a module. It can be removed and is then made again. Check mode adds nothing to it.
version_added: 0.1.0
author:
  - The k8sgu authors (@k8sgu)
requirements:
  - "On the node: Python 3.8 or newer, systemd, root privileges (C(become: true)); Debian or Ubuntu where O(components[].packages) is used."
attributes:
  check_mode:
    support: full
    description: Predicts the changes, including restarts, and changes nothing.
  diff_mode:
    support: full
    description: Shows each file before and after. The content of files with O(components[].files[].secret=true) is never shown.
  idempotent:
    support: full
    description: A second run with the same options changes nothing.
  platform:
    support: full
    description: Nodes that run systemd.
    platforms: linux
options:
  mirror_dir:
    description:
      - The mirror on the controller, a directory with C(manifest.json), which names size and SHA-256 of every file.
      - Required if O(components[].binaries) is used.
    type: path
  mirror_url:
    description:
      - Address of the same directory for the node, C(http) or C(https).
      - If empty, the files that the node lacks come from their O(publishers) or are pushed over the connection.
    type: str
    default: ""
  mirror_proxy:
    description:
      - Proxy through which the node reaches O(mirror_url), C(http://HOST:PORT), with a password C(http://USER:PASSWORD@HOST:PORT).
      - If empty, the mirror is reached directly, regardless of proxies in the node's environment.
    type: str
    default: ""
  mirror_ca:
    description: On the controller, the certificate of the only CA that O(mirror_url) may have its own from. Otherwise the system's CAs are trusted.
    type: path
  publishers:
    description: How the node fetches straight from the publishers of programs.
    type: dict
    suboptions:
      use:
        description:
          - Whether a program that the mirror has from its publisher is fetched from there by the node itself, which checks it
            against the mirror's SHA-256. Programs that were built are pushed.
        type: bool
        default: false
      proxy:
        description: Proxy to the publishers, in the form of O(mirror_proxy).
        type: str
        default: ""
      no_proxy:
        description: Hosts, domains, addresses and ranges to reach without the proxy, with commas between them.
        type: str
        default: ""
  architecture:
    description:
      - Architecture of the node's programs, named as in the mirror.
      - The default comes from C(ec2_architecture) or C(ansible_architecture) of the host.
    type: str
    choices: [amd64, arm64]
  state:
    description:
      - V(present) installs and runs the components.
      - V(fetched) only brings their programs to the node, each in the directory of its version, so that V(present) needs no download
        later. Nothing that runs is changed.
    type: str
    choices: [present, fetched]
    default: present
  lock_timeout:
    description: Seconds to wait for another run of this module on the same node.
    type: int
    default: 300
  components:
    description:
      - The components, in the order in which they are started. Each starts once the one before it is healthy.
      - Required in a task.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the component, unique on the node. Its record on the node is C(/var/lib/k8sgu/component/<name>.json).
        type: str
        required: true
      binaries:
        description:
          - Programs from the mirror.
          - They are installed to C(/opt/k8sgu/<component>/<version>/), and C(/opt/k8sgu/<component>/current) is switched to that version atomically.
        type: list
        elements: dict
        default: []
        suboptions:
          component:
            description: Name in the mirror.
            type: str
            required: true
          version:
            description: Version in the mirror.
            type: str
            required: true
          files:
            description: Which of its files, by default all in the mirror.
            type: list
            elements: str
            default: []
          links:
            description: Files that get a link in C(/usr/local/bin).
            type: list
            elements: str
            default: []
          restart:
            description: Whether another version restarts the units.
            type: bool
            default: true
      content:
        description: Files and images of the mirror that the node keeps to serve them to others.
        type: dict
        suboptions:
          directory:
            description: Where they are kept, each under its SHA-256.
            type: path
            required: true
          index:
            description:
              - File that says in JSON what the content is. C(files) has the SHA-256 of each path in the mirror, C(images) the media type
                and digest of each name, and C(blobs) the SHA-256 of all that the images consist of.
            type: path
            required: true
          files:
            description: Paths in the mirror.
            type: list
            elements: str
            default: []
          images:
            description: Names of images.
            type: list
            elements: str
            default: []
      packages:
        description: Distribution packages that must be installed. APT is called only when one is missing.
        type: list
        elements: str
        default: []
      user:
        description: System user that the component runs as, without a login shell.
        type: dict
        suboptions:
          name:
            description: Name of the user.
            type: str
            required: true
          group:
            description: Primary group, by default with the user's name.
            type: str
          home:
            description: Home directory. It is not created; list it in O(components[].directories).
            type: path
            default: /nonexistent
      directories:
        description: Directories that must exist, in order. Missing parents are created with mode V(0755).
        type: list
        elements: dict
        default: []
        suboptions:
          path:
            description: Absolute path.
            type: path
            required: true
          owner: &owner
            description: Name of the owner.
            type: str
            default: root
          group: &group
            description: Name of the group.
            type: str
            default: root
          mode:
            description: Permissions, four octal digits in quotes.
            type: str
            default: "0755"
      files:
        description: Files, written atomically. The content of a file that is present comes from exactly one of C(template), C(src), C(content) and C(zipapp).
        type: list
        elements: dict
        default: []
        suboptions:
          dest:
            description: Absolute path on the node. Missing directories are created with mode V(0755).
            type: path
            required: true
          template: &template
            description: Jinja template, found like those of M(ansible.builtin.template), rendered on the controller with the task's variables.
            type: path
          src: &src
            description: File on the controller, copied unchanged.
            type: path
          content: &content
            description: The content itself.
            type: str
          vars: &vars
            description: Additional variables for the template.
            type: dict
            default: {}
          zipapp:
            description:
              - A module below this collection's C(module_utils) that has a function C(main), such as V(_etcd.backup). The file becomes a program
                that C(/usr/bin/python3) runs, with all that the module imports, which may be the standard library and our own code.
              - The same sources give the same bytes.
            type: str
          owner: *owner
          group: *group
          mode:
            description: Permissions, four octal digits in quotes.
            type: str
            default: "0644"
          secret:
            description: Keeps the content out of the diff and every message.
            type: bool
            default: false
          restart:
            description: Whether a change restarts the units. It has no effect on components without units.
            type: bool
            default: true
          reload:
            description:
              - Whether a change reloads the units (C(systemctl reload)) instead of restarting them.
              - A unit that has not come up, or fails its health check before the change, is restarted.
            type: bool
            default: false
          restart_on:
            description:
              - Text for what of the file the units must be restarted for, where O(components[].files[].reload) or
                O(components[].files[].restart=false) holds for the rest. They are restarted when they were started with another text.
            type: str
          validate:
            description: Command that must accept the new content before the file is replaced; C(%s) is the path of a temporary file with it.
            type: str
          state:
            description: V(absent) removes the file.
            type: str
            choices: [present, absent]
            default: present
      unit:
        description: The systemd unit. Use O(components[].units) for several.
        type: dict
        suboptions: &unit_options
          name:
            description: Full name, for example V(etcd.service).
            type: str
            required: true
          template: *template
          src: *src
          content: *content
          vars: *vars
          enabled:
            description: Whether it starts with the node.
            type: bool
            default: true
          state:
            description:
              - V(started) makes the unit run, V(stopped) stops it.
              - V(on_demand) is for a unit that another one starts, such as a timer, and that ends by itself. It is neither started nor stopped.
              - V(absent) stops and disables it and removes the unit file that this module installed.
            type: str
            choices: [started, on_demand, stopped, absent]
            default: started
      units:
        description:
          - The systemd units, started in this order and stopped in the reverse one.
          - A unit file is installed to C(/etc/systemd/system/); without C(template), C(src) or C(content) the unit is the distribution's.
        type: list
        elements: dict
        default: []
        suboptions: *unit_options
      on_change:
        description: Commands, each a list of arguments, to run after any of the component's files changed and before its units are started.
        type: list
        elements: list
        default: []
      health:
        description: Check that shows that the component works. Made in every run; without it, a unit that was started must stay active for a second.
        type: dict
        suboptions:
          url:
            description: Address that must answer.
            type: str
          expect_status:
            description: HTTP status that O(components[].health.url) must answer with.
            type: int
            default: 200
          expect_body:
            description: Regular expression that must match in the answer of the URL or the output of the command.
            type: str
          ca:
            description: CA bundle on the node that verifies the server's certificate.
            type: path
          cert:
            description: Client certificate on the node.
            type: path
          key:
            description: Key of the client certificate, on the node.
            type: path
          tcp:
            description: Address V(host:port) that must accept a connection.
            type: str
          unix:
            description: Path of a socket that must accept a connection.
            type: path
          command:
            description: Command, a list of arguments, that must exit with status 0.
            type: list
            elements: str
          serves:
            description:
              - Servers and the certificates that they must present, for programs that are to read a renewed one anew.
              - Who signed it does not matter. O(components[].health.cert) is offered to servers that ask for a client's.
            type: list
            elements: dict
            default: []
            suboptions:
              address:
                description: The server as V(host:port), an IPv6 address in brackets.
                type: str
                required: true
              certificate:
                description: File on the node whose first certificate the server presents.
                type: path
                required: true
          timeout:
            description: Seconds until the component counts as unhealthy.
            type: int
            default: 60
      rollback:
        description: Whether to roll back a changed component that does not become healthy.
        type: bool
        default: true
      overlap:
        description:
          - Whether the next of O(components) starts while this one becomes healthy, for programs that can start without each other.
        type: bool
        default: false
      leaves:
        description:
          - What its programs make while they run, beside what is placed. M(k8sgu.cluster.node_reset) takes it away, unless it was there
            before the component. What is placed needs no entry here.
          - Names may be patterns as in a shell, except for paths, tables and kernel settings.
        type: dict
        suboptions:
          paths:
            description: Files and whole directories. So are all of O(components[].directories).
            type: list
            elements: path
            default: []
          mounts:
            description: Where file systems are mounted outside of these directories. What is below them is unmounted anyway.
            type: list
            elements: str
            default: []
          interfaces:
            description: Network interfaces.
            type: list
            elements: str
            default: []
          tables:
            description: Tables of nftables, as family and name.
            type: list
            elements: str
            default: []
          chains:
            description: Chains of iptables and ip6tables, with the rules that lead to them.
            type: list
            elements: str
            default: []
          comments:
            description: Comments of further rules of iptables and ip6tables, in chains that are nobody's.
            type: list
            elements: str
            default: []
          sets:
            description: Sets of ipset.
            type: list
            elements: str
            default: []
          sysctls:
            description: Kernel settings, which get the values back that they had before the component.
            type: list
            elements: str
            default: []
          cgroups:
            description: Control groups at the top, of which every process is ended.
            type: list
            elements: str
            default: []
  prepared:
    description: Input for the node. The action plugin sets it; it cannot be given.
    type: str
"""

EXAMPLES = r"""
- name: Etcd
  become: true
  k8sgu.cluster.component:
    mirror_dir: "{{ k8sgu_mirror_dir }}"
    mirror_url: "{{ k8sgu_mirror_url }}"
    components:
      - name: etcd
        binaries:
          - component: etcd
            version: 3.6.14
            files: [etcd, etcdctl, etcdutl]
            links: [etcdctl, etcdutl]
        user:
          name: etcd
          home: /var/lib/etcd
        directories:
          - {path: /var/lib/etcd, owner: etcd, group: etcd, mode: "0700"}
        files:
          - {dest: /etc/etcd/etcd.yml, template: etcd.yml.j2, group: etcd, mode: "0640"}
          - {dest: /etc/etcd/pki/ca.pem, src: "{{ k8sgu_state_dir }}/pki/etcd-ca.pem"}
          - {dest: /etc/etcd/pki/server-key.pem, src: "{{ k8sgu_state_dir }}/pki/etcd-server-key.pem", owner: etcd, mode: "0600", secret: true}
        unit:
          name: etcd.service
          template: etcd.service.j2
        health:
          url: https://127.0.0.1:2379/health
          ca: /etc/etcd/pki/ca.pem
          cert: /etc/etcd/pki/client.pem
          key: /etc/etcd/pki/client-key.pem
          expect_body: '"health":"true"'

- name: Kernel settings, a component without a unit
  become: true
  k8sgu.cluster.component:
    components:
      - name: sysctl
        files:
          - dest: /etc/sysctl.d/90-k8sgu.conf
            content: |
              net.ipv4.ip_forward = 1
        on_change:
          - [sysctl, --system]
"""

RETURN = r"""
components:
  description: One entry for each component that was processed, in order.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: Name of the component.
      type: str
      returned: always
      sample: etcd
    changed:
      description: Whether anything was, or in check mode would be, changed.
      type: bool
      returned: always
    reasons:
      description: Each change with its reason, in the order of execution.
      type: list
      elements: str
      returned: always
      sample:
        - "file /etc/etcd/etcd.yml: content differs"
        - "restart etcd.service: /etc/etcd/etcd.yml changed"
    faults:
      description: What on the node makes its changes impossible.
      type: list
      elements: str
      returned: in check mode
    paths:
      description: Every path that the component knows.
      type: list
      elements: str
      returned: in check mode
    units:
      description: Every unit of the component.
      type: list
      elements: str
      returned: in check mode
    seconds:
      description: Time that the component took, in seconds.
      type: float
      returned: always
    healthy_after:
      description: Seconds that the health check took to succeed.
      type: float
      returned: when there is a health check and it was made
rolled_back:
  description: Name of the component that was rolled back.
  type: str
  returned: when a changed component did not become healthy
journal:
  description: Last lines of the journal of the units that did not become healthy.
  type: list
  elements: str
  returned: when a component did not become healthy
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import ComponentError
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.options import ARGUMENT_SPEC
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.run import run
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Module, run_module


def main() -> None:
    run_module(Module(ARGUMENT_SPEC, run, (ComponentError,)))


if __name__ == "__main__":
    main()
