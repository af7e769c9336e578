"""The servers themselves, one module each, imported only by the worker that serves."""

from __future__ import annotations
