#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation; the action plugin of this name does the work, always on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mirror
short_description: Fill one directory with every program and image of a Kubernetes release
version_added: 0.1.0
description:
  - The mirror is a directory with every program and container image that a cluster with the given options needs, and a
    manifest that names version, architecture, size, SHA-256 and source of each. Nodes install from it.
  - Intact items are left unchanged. Missing items are downloaded from their publisher, built from their Go module,
    pulled from their registry, assembled here, or taken from another mirror, several at a time, and verified before they
    get their final names.
  - Interrupted downloads are resumed and retried. After a killed run the next one continues. Built and downloaded items are kept in
    a cache, so that a second mirror takes only seconds.
  - Prints its progress.
extends_documentation_fragment:
  - k8sgu.cluster.controller
options:
  kubernetes_version:
    description:
      - Kubernetes' version, such as C(1.36.4). Its file in O(releases_dir) determines all other versions.
    type: str
    required: true
  releases_dir:
    description:
      - Directory with the releases, one C(<minor>.yml) each, and below C(build/) the pins of items that are built from source.
    type: path
    required: true
  mirror_dir:
    description:
      - The directory to fill. It can contain several releases.
    type: path
    required: true
  source:
    description:
      - Where missing items come from.
      - V(upstream) downloads items from their publishers. An image that is not published is built.
      - V(build) compiles everything with the Go toolchain on C(PATH) and assembles the images. Programs that the
        distribution packages better, such as runc, come from the nodes' own package.
      - V(directory) copies from a filled mirror, for example on an air-gapped site, and uses no network.
      - V(auto) is V(upstream) for each publisher that answers, and V(build) for each that does not, or that refuses the
        file. A file that does not match its checksum is an error, never a reason to build.
      - With V(upstream) and V(build), items from another source are replaced.
    type: str
    choices: [auto, upstream, build, directory]
    default: auto
  source_dir:
    description:
      - The filled mirror for O(source=directory). The default is O(mirror_dir) itself, which is then only checked.
    type: path
  architectures:
    description:
      - The nodes' architectures, by their Go names.
    type: list
    elements: str
    default: [amd64]
  container_runtime:
    description:
      - The nodes' container runtime. Programs of the other one are not fetched.
    type: str
    choices: [containerd, docker]
    default: containerd
  pod_network:
    description:
      - How pods reach each other. flannel is fetched only for V(vxlan).
    type: str
    choices: [routed, vxlan]
    default: routed
  backup_bucket:
    description:
      - Whether to include the program with which members of etcd encrypt what they put into a bucket.
    type: bool
    default: false
  metrics_server:
    description:
      - Whether to include metrics-server.
    type: bool
    default: true
  observability:
    description:
      - Whether to include what measures the cluster and its nodes.
    type: bool
    default: true
  demo:
    description:
      - Whether to include the images of the demo application and the network tests.
    type: bool
    default: true
  cache_dir:
    description:
      - Cache of downloads and built programs for the next mirror.
      - By default C(k8sgu) below C($XDG_CACHE_HOME), or below C(~/.cache).
    type: path
  lock_file:
    description:
      - Lock file that pins checksums that publishers gave over HTTPS, and digests of image tags. Keep it in your own repository.
      - By default C(<minor>.lock.yml) in O(releases_dir).
    type: path
  parallel:
    description:
      - Number of downloads at a time.
    type: int
    default: 4
  attempts:
    description:
      - Number of attempts before a request fails.
    type: int
    default: 5
  timeout:
    description:
      - Seconds of silence after which a connection counts as broken.
    type: int
    default: 30
  verify:
    description:
      - Hash every file, even if it has not changed since it was hashed last.
    type: bool
    default: false
requirements:
  - PyYAML, which ansible-core installs
  - Go, as new as the C(go) line of the modules in O(releases_dir), for building
  - apt and dpkg, for building images that need a userland
attributes:
  check_mode:
    support: full
    description: Reports what is missing and where it would come from, and changes nothing.
  diff_mode:
    support: full
    description: Lists the items of the mirror before and after.
  idempotent:
    support: full
    description: A complete mirror is not changed; this takes less than a second.
seealso:
  - name: SHA-256 files of Kubernetes
    description: Where the publisher's checksums come from.
    link: https://kubernetes.io/releases/download/
  - name: OCI image layout
    description: The format of the images in the mirror.
    link: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
author:
  - The k8sgu authors (@k8sgu)
"""

EXAMPLES = r"""
- name: Fill the mirror, from upstream where it answers
  k8sgu.cluster.mirror:
    kubernetes_version: 1.36.4
    releases_dir: releases
    mirror_dir: .state/demo/mirror

- name: Build everything from source, for two architectures, without the demo
  k8sgu.cluster.mirror:
    kubernetes_version: 1.36.4
    releases_dir: releases
    mirror_dir: /srv/mirror
    source: build
    architectures: [amd64, arm64]
    demo: false

- name: Copy a mirror that was brought to an air-gapped site
  k8sgu.cluster.mirror:
    kubernetes_version: 1.36.4
    releases_dir: releases
    mirror_dir: /srv/mirror
    source: directory
    source_dir: /media/usb/mirror
"""

RETURN = r"""
mirror_dir:
  description: The mirror's absolute path.
  returned: success
  type: str
  sample: /srv/mirror
kubernetes_version:
  description: Kubernetes' version.
  returned: success
  type: str
  sample: 1.36.4
steps:
  description: What was missing, or in check mode is missing.
  returned: success
  type: list
  elements: dict
  contains:
    item:
      description: Component, version and architecture, or an image's name.
      type: str
      sample: etcd 3.6.14 amd64
    source:
      description: Its source, one of C(upstream), C(build), C(distribution), C(directory).
      type: str
      sample: build
    reason:
      description: Why it counted as missing.
      type: str
      sample: not in the mirror
    because:
      description: Why it came from there, if that was not the user's choice.
      type: str
      sample: github.com does not answer
packages:
  description: Packages of the nodes' distribution that replace components.
  returned: success
  type: list
  elements: str
  sample: [runc]
"""
