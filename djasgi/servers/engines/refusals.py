"""Requests that do not reach the application: the answer, and the line in the log."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from djasgi import records
from djasgi.options import Options
from djasgi.servers.engines.heads import Field


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


def date() -> bytes:
    """Now, as it is in a Date field."""
    return _date(int(time.time()))


def own_fields(options: Options) -> list[Field]:
    """What each response begins with, unless the application has said it itself."""
    fields = [(b"date", date())] if options.date_header else []
    if options.server_header:
        fields.append((b"server", options.server.encode()))
    return fields


@lru_cache(maxsize=64)
def phrase(status: int) -> bytes:
    """The reason phrase of a status, empty for one that is not registered."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


def refusal(status: HTTPStatus, options: Options) -> bytes:
    """The whole response to a request that is refused; the connection ends with it."""
    body = status.phrase.encode()
    more = (
        [(b"sec-websocket-version", b"13")]
        if status is HTTPStatus.UPGRADE_REQUIRED
        else []
    )
    fields = [
        *own_fields(options),
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        *more,
    ]
    return response(status, fields, body)


def response(status: int, fields: Sequence[Field], body: bytes) -> bytes:
    """A response as it is sent."""
    lines = [b"HTTP/1.1 %d %b" % (status, phrase(status))]
    lines += [b"%b: %b" % field for field in fields]
    return b"\r\n".join([*lines, b"", body])


def log(status: HTTPStatus, client: Any, scheme: str, options: Options) -> None:
    """A line in the access log, with nothing of what could not be read."""
    if not options.access_log or not records.is_enabled():
        return
    fields = {
        "client": client[0] if client else None,
        "method": "-",
        "path": "-",
        "http_version": "-",
        "scheme": scheme,
        "request_id": os.urandom(16).hex(),
        "event": "refused",
        "status": int(status),
        "bytes": len(status.phrase),
        "duration": 0.0,
    }
    records.emit(fields, f"{int(status)}")
