"""The parent of the workers: it binds sockets, decides and waits; it never serves."""

from __future__ import annotations
