"""Sphinx settings of the site; build_site.py gathers its pages and builds it."""

project = "The fine-tuning workbench"
html_title = project
copyright = "Apache-2.0 for code and model, CC0 for the data"

extensions = ["myst_nb"]
# The lessons were executed by `python run.py course`.
nb_execution_mode = "off"
# The live panels' script would come from the network: the pages show still pictures.
nb_ipywidgets_js = {}
nb_merge_streams = True
nb_code_prompt_show = "Show the solution"
nb_code_prompt_hide = "Hide the solution"
# README's headings are what its links name.
myst_heading_anchors = 3

html_theme = "alabaster"  # comes with Sphinx
html_theme_options = {
    "description": "Fine-tune a language model, and measure it",
    "fixed_sidebar": True,
    "code_font_size": "0.78em",  # a cell's 88 characters fit
    "page_width": "1160px",
    "sidebar_width": "250px",
}
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
