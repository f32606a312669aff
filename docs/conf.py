"""Sphinx's settings for the site that `make docs` builds. tools/docs_site.py puts its pages together and says where."""

from __future__ import annotations

import os

project = "k8sgu"
author = "The k8sgu authors"
html_title = "k8sgu"
html_theme = "furo"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False

extensions = ["myst_parser", "sphinx.ext.intersphinx", "sphinx_antsibull_ext"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
# Anchors as GitHub makes them, so that a link serves in both places.
myst_heading_anchors = 4
highlight_language = "none"
pygments_style = "ansible"

# What the collection's pages refer to in Ansible's own: an inventory that is written beside them, so that no network
# is needed.
intersphinx_mapping = {"ansible": (os.environ["K8SGU_DOCS_ANSIBLE"], "ansible.inv")}
