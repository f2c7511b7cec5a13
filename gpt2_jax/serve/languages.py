"""Names the languages of the page, for the command line too, which imports no server."""

from __future__ import annotations

LANGUAGES = ("en", "zh")
"""Those that `static/i18n` has texts of; the first is the page's own."""
