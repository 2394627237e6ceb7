"""Doctests as code: Markdown would take the prompts for quotations."""

import re

import griffe

# A paragraph that begins with a prompt.
DOCTEST = re.compile(r"^(>>> .*(?:\n.+)*)", re.MULTILINE)


class Doctests(griffe.Extension):
    """Puts the doctests of docstrings into fences."""

    def on_object(self, *, obj, **kwargs):
        """Changes the docstring of an object."""
        if obj.docstring is not None:
            text = obj.docstring.value
            obj.docstring.value = DOCTEST.sub(r"```python\n\1\n```", text)
