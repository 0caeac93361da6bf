# ruff: noqa: INP001  # Griffe loads it by its path
"""The reference shows a docstring's `Example:` as code, as it does `Examples:`; an extension of Griffe."""

from __future__ import annotations

import re
from typing import Any

import griffe


class ExampleSections(griffe.Extension):
    """Names the section as Griffe's parser of Google style knows it."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the heading in the docstring as it was read; no file is changed."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
