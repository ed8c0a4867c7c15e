"""One HTML file per report: the skeleton and the style that reports share, and drawings for them."""

from __future__ import annotations

from rexport.pages.page import render, require_extra, time_in_words

__all__ = ["render", "require_extra", "time_in_words"]
