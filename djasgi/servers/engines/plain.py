"""The request that most are: a whole head, in order, and no body.

It needs no parser that keeps a state, and hypercorn's and daphne's take longer for one
than everything else together. What is not plain, or breaks a rule, is left to them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from djasgi.servers.engines.heads import (
    NOT_IN_A_LINE,
    TOKEN,
    Field,
    is_visible,
    problem,
    remember,
    tokens,
)

_REQUEST_LINE = re.compile(rb"([A-Z-]+) (/[^ ]*) HTTP/(1\.[01])")
_NOT_PLAIN = frozenset((b"content-length", b"transfer-encoding", b"expect", b"upgrade"))

_NAMES: dict[bytes, bytes] = {}
"""Names of header fields that say nothing to a server, in lower case."""


class Plain(NamedTuple):
    """The head of a request without a body, as the application is to see it."""

    method: bytes
    target: bytes
    version: str
    fields: list[Field]
    keep_alive: bool


def plain_request(data: bytes, most: int) -> Plain | None:
    """What `data` is, if that is one request, plain and no longer than `most` bytes."""
    if len(data) > most or data[-4:] != b"\r\n\r\n":
        return None
    lines = data[:-4].split(b"\r\n")
    first = _REQUEST_LINE.fullmatch(lines[0])
    if first is None or NOT_IN_A_LINE.search(b"".join(lines)):
        return None
    method, target, number = first.groups()
    version = number.decode()
    keep_alive = version == "1.1"
    fields = []
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        lower = _NAMES.get(name) or _lower(name)
        if lower is None or not colon:
            return None
        value = value.strip(b" \t")
        if lower == b"connection" and b"close" in tokens(lower, ((lower, value),)):
            keep_alive = False
        fields.append((lower, value))
    if problem(method, target, version, fields) is not None:
        return None
    return Plain(method, target, version, fields, keep_alive)


def _lower(name: bytes) -> bytes | None:
    """`name` in lower case; None if a parser, or whoever reads the rest, is to see it."""
    lower = name.lower()
    if not TOKEN.fullmatch(name) or not is_visible(lower) or lower in _NOT_PLAIN:
        return None
    remember(_NAMES, name, lower)
    return lower
