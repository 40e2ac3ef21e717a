"""The pages and the public names as one site: ``make docs``, which fails at the first warning.

Sphinx, because it takes Markdown pages as they are (by myst-parser) and docstrings as they are written, and is kept up.
The source is the whole checkout, so that a link from a page to the README or the changelog is a link there too.
"""

import logging

import pair_pkg

logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells what it loads, and Sphinx would show it

project = "pair_pkg"
author = "the authors of pair_pkg"
release = pair_pkg.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**", "data/README.md"]
exclude_patterns = ["site"]
html_theme = "furo"
html_title = f"pair_pkg {release}"
myst_heading_anchors = 3  # links to headings, as on GitHub
suppress_warnings = ["myst.header"]  # a page may go from its title to a third level
autodoc_preserve_defaults = True
