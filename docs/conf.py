"""How Sphinx builds the documentation."""

from kie_cover_async import __version__

project = "kie_cover_async"
author = "The kie_cover_async authors"
project_copyright = f"2026, {author}"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3

# In docstrings a name between single backticks is code, and a link where it is documented.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 70
add_module_names = False
toc_object_entries_show_parents = "hide"

# The button copies the input without prompts and output.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True

# References are checked within the package only, so that a build needs no network.
# A type variable is documented nowhere.
nitpick_ignore_regex = [("py:.*", r"(?!kie_cover_async\b).*"), ("py:class", r".*\.T")]

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["pictures.css"]
