"""The records of the access log, whoever makes them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger("djasgi.access")

_MESSAGE = "%s %s %s HTTP/%s %s %d %.1fms %s"


def is_enabled() -> bool:
    """Whether anybody wants these records."""
    return logger.isEnabledFor(logging.INFO)


def emit(fields: Mapping[str, Any], words: str) -> None:
    """Log one record, at INFO.

    `fields` are its attributes: `client`, `method`, `path`, `http_version`, `scheme`,
    `request_id`, `event`, `status`, `bytes` and `duration` (milliseconds). `words` is
    what stands in a line of text in place of `event` and `status`.
    """
    args = (
        fields["client"] or "-",
        fields["method"],
        fields["path"],
        fields["http_version"],
        words,
        fields["bytes"],
        fields["duration"],
        fields["request_id"],
    )
    # Not logger.info(), which walks the stack to find its caller.
    record = logging.getLogRecordFactory()(
        logger.name, logging.INFO, "", 0, _MESSAGE, args, None
    )
    record.__dict__.update(fields)
    logger.handle(record)
