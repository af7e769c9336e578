"""djasgi runs Django on ASGI under uvicorn, hypercorn or daphne."""

from __future__ import annotations

__version__ = "0.1.0"
