# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mirror: one directory with every program and image of a release, whatever its source.

    release    what a release is made of, read from releases/<minor>.yml
    plan       what is missing and where it will come from; pure
    fill       carries the plan out: downloads, builds, pulls, assembles
    store      the directory itself and its manifest.json

Runs on the controller. Helpers raise MirrorError; only the action plugin turns it into a failed task.
"""
