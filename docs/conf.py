"""How Sphinx builds the documentation."""

from kie_cover_async import __version__

project = "kie_cover_async"
author = "The kie_cover_async authors"
project_copyright = f"2026, {author}"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"

# References are checked within the package only, so that a build needs no network.
nitpick_ignore_regex = [("py:.*", r"(?!kie_cover_async\b).*")]

html_theme = "furo"
html_title = f"{project} {release}"
