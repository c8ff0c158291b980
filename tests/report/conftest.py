"""Fixtures: a browser that opens reports."""

from browser import chromium, visit  # noqa: F401
