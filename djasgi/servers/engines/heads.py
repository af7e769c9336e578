"""What the head of a request must be: one set of rules, whichever parser has read it.

The parsers of the servers differ in what they let pass, and a request that two programs
read differently is what request smuggling is made of. Here are the stricter of the rules
of RFC 9110 and 9112; a server's module applies them to what its parser has accepted.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterable, Sequence
from http import HTTPStatus

Field = tuple[bytes, bytes]

MOST_FIELDS = 500
"""Header fields of a request, at most."""

METHODS = frozenset(
    b"ACL BIND CHECKOUT COPY DELETE GET HEAD LINK LOCK M-SEARCH MERGE MKACTIVITY "
    b"MKCALENDAR MKCOL MOVE NOTIFY OPTIONS PATCH POST PROPFIND PROPPATCH PURGE PUT "
    b"QUERY REBIND REPORT SEARCH SOURCE SUBSCRIBE TRACE UNBIND UNLINK UNLOCK "
    b"UNSUBSCRIBE".split()
)
"""The methods that llhttp knows; it cannot be told more. CONNECT is for proxies."""

NOT_IN_A_LINE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""Control characters but HTAB (RFC 9110, section 5.5)."""

_NOT_IN_A_TARGET = re.compile(rb"[^\x21-\x22\x24-\x7e]")
"""What is not visible, and the begin of a fragment (RFC 9112, section 3.2)."""

_ABSOLUTE = re.compile(rb"(?i)https?://([^/?@]+)((?:[/?].*)?)", re.DOTALL)

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
TOKEN = re.compile(_TOKEN)
"""A name (RFC 9110, section 5.6.2)."""

_PARAMETER = rb"[ \t]*;[ \t]*" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb'|"[^"\\]*"))?'
_EXTENSION = _TOKEN + rb"(?:" + _PARAMETER + rb")*"
# RFC 6455, section 9.1
_EXTENSIONS = re.compile(_EXTENSION + rb"(?:[ \t]*,[ \t]*" + _EXTENSION + rb")*")

_FRAMING = frozenset((b"host", b"content-length", b"transfer-encoding"))

_MOST_DIGITS = 18
"""Of a Content-Length: more is beyond what some parsers count."""

_MOST_NAMES = 1000
_LONGEST_NAME = 64

_HANDSHAKE_KEY = 16
"""Bytes in Sec-WebSocket-Key (RFC 6455, section 4.1)."""


def problem(
    method: bytes, target: bytes, version: str, fields: Sequence[Field]
) -> HTTPStatus | None:
    """The status with which to refuse a request with this head; None if it is in order.

    `version` is "1.0" or "1.1"; the names of `fields` are in lower case.
    """
    if method not in METHODS or version not in ("1.1", "1.0"):
        return HTTPStatus.BAD_REQUEST
    if not target or _NOT_IN_A_TARGET.search(target):
        return HTTPStatus.BAD_REQUEST
    if target[:1] != b"/" and not (
        (target == b"*" and method == b"OPTIONS") or _ABSOLUTE.fullmatch(target)
    ):
        return HTTPStatus.BAD_REQUEST
    hosts = lengths = codings = 0
    for name, value in [field for field in fields if field[0] in _FRAMING]:
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            lengths += 1
            if not value.isdigit() or len(value) > _MOST_DIGITS:
                return HTTPStatus.BAD_REQUEST
        else:
            codings += 1
            if value.lower() != b"chunked":
                return HTTPStatus.NOT_IMPLEMENTED
    if hosts != 1 and (hosts or version == "1.1"):
        return HTTPStatus.BAD_REQUEST
    if lengths + codings > 1 or (codings and version == "1.0"):
        return HTTPStatus.BAD_REQUEST
    if len(fields) > MOST_FIELDS:
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    return None


def remember(names: dict[bytes, bytes], name: bytes, value: bytes) -> None:
    """Keep what is looked up by the name of a field.

    Names come from the outside, in any number and of any length: few and short ones are
    kept.
    """
    if len(names) < _MOST_NAMES and len(name) <= _LONGEST_NAME:
        names[name] = value


def is_visible(name: bytes) -> bool:
    """Whether the application sees a field of this name, which is in lower case.

    A name with an underscore would be taken for another one, with hyphens, wherever the
    fields become CGI variables; and one field is an order to daphne.
    """
    return b"_" not in name and name != b"daphne-root-path"


def visible(fields: Iterable[Field]) -> list[Field]:
    """What of `fields` the application sees."""
    return [field for field in fields if is_visible(field[0])]


def origin_form(target: bytes, fields: list[Field]) -> tuple[bytes, list[Field]]:
    """`target`, absolute, as a path with its query, and `fields` with its Host.

    The host in the target is the one that counts (RFC 9112, section 3.2.2).
    """
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:  # the asterisk
        return target, fields
    host, path = absolute.groups()
    if path[:1] != b"/":
        path = b"/" + path
    rest = [field for field in fields if field[0] != b"host"]
    return path, [(b"host", host), *rest]


def wants_websocket(method: bytes, version: str, fields: Iterable[Field]) -> bool:
    """Whether a request asks to become a websocket (RFC 6455, section 4.1)."""
    if method != b"GET" or version != "1.1":
        return False
    return b"websocket" in tokens(b"upgrade", fields) and b"upgrade" in tokens(
        b"connection", fields
    )


def handshake_problem(fields: Sequence[Field]) -> HTTPStatus | None:
    """The status with which to refuse this handshake (RFC 6455, section 4.2.2)."""
    versions = [value for name, value in fields if name == b"sec-websocket-version"]
    keys = [value for name, value in fields if name == b"sec-websocket-key"]
    if len(versions) != 1 or len(keys) != 1:
        return HTTPStatus.BAD_REQUEST
    if any(
        name == b"sec-websocket-extensions" and not _EXTENSIONS.fullmatch(value)
        for name, value in fields
    ):
        return HTTPStatus.BAD_REQUEST
    offered = subprotocols(fields)
    if len(set(offered)) != len(offered) or not all(
        TOKEN.fullmatch(name.encode("latin-1")) for name in offered
    ):
        return HTTPStatus.BAD_REQUEST
    if versions[0] != b"13":
        return HTTPStatus.UPGRADE_REQUIRED
    try:
        key = b64decode(keys[0], validate=True)
    except binascii.Error:
        return HTTPStatus.BAD_REQUEST
    return None if len(key) == _HANDSHAKE_KEY else HTTPStatus.BAD_REQUEST


def subprotocols(fields: Iterable[Field]) -> list[str]:
    """What the client offers, in its order."""
    return [
        token.decode("latin-1")
        for name, value in fields
        if name == b"sec-websocket-protocol"
        for token in (part.strip() for part in value.split(b","))
        if token
    ]


def tokens(name: bytes, fields: Iterable[Field]) -> set[bytes]:
    """The elements of the lists in the fields `name`, in lower case."""
    return {
        token.strip()
        for field, value in fields
        if field == name
        for token in value.lower().split(b",")
    }
