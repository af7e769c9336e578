"""What still differs between the servers, declared once: for people and for the tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Difference:
    """One behaviour that the choice of server changes.

    `servers` says what each does; `meaning` what it is to an application; `probe` is the
    test that pins it (`file::function` below `tests`), so that a change is noticed.
    """

    what: str
    servers: Mapping[str, str]
    meaning: str
    probe: str


DIFFERENCES = (
    Difference(
        "Request bodies",
        {
            "uvicorn": "streamed",
            "hypercorn": "streamed",
            "daphne": "complete before the application is called",
        },
        "Under daphne an application cannot answer, or refuse, before the end of an "
        "upload. Set --max-body-size: it holds there while the body is read.",
        "conformance/test_differences.py::test_request_body",
    ),
    Difference(
        "Connection after a response that came before the end of the request",
        {"uvicorn": "closed", "hypercorn": "closed", "daphne": "kept"},
        "None; daphne has read all of the request.",
        "conformance/test_differences.py::test_connection_after_an_early_response",
    ),
    Difference(
        "100 Continue",
        {
            "uvicorn": "when the application asks for the body",
            "hypercorn": "at once",
            "daphne": "at once",
        },
        "A client that waits for it may send a body that the application refuses.",
        "conformance/test_differences.py::test_continue",
    ),
    Difference(
        "Compression of websocket messages (permessage-deflate)",
        {"uvicorn": "on", "hypercorn": "on", "daphne": "off"},
        "More bytes on the wire under daphne. For uvicorn, -o ws_per_message_deflate=off.",
        "conformance/test_differences.py::test_compression",
    ),
    Difference(
        "A websocket that is closed between the fragments of a message",
        {
            "uvicorn": "failed with 1002",
            "hypercorn": "closed with its code",
            "daphne": "closed with its code",
        },
        "Under uvicorn the code that the application sees is 1002 (RFC 6455, section 5.4, "
        "allows the close).",
        "conformance/test_differences.py::test_close_between_fragments",
    ),
)
