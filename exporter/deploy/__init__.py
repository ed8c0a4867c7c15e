"""Signed bundles, and the way to devices and fleets of them."""

from __future__ import annotations

__all__: list[str] = []
