"""The three servers: for each how every option is met, and how it serves."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import cast

from djasgi.options import SERVERS
from djasgi.servers.base import Server, Support


def load(name: str) -> Server:
    """The module of a server; the server itself is not imported yet.

    Raises KeyError for a name that is not in `djasgi.options.SERVERS`.
    """
    if name not in SERVERS:
        raise KeyError(name)
    return cast("Server", importlib.import_module(f"djasgi.servers.{name}"))


def support(name: str) -> Mapping[str, Support]:
    """How the server `name` meets each field of `djasgi.options.OPTIONS`."""
    return load(name).SUPPORT
