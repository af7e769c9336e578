"""What an import leaves that does not survive a fork, and which module it was.

A thread is gone in the child and its locks are not; a poll descriptor, a connection or a
listening socket is shared by parent and child, who disturb each other. Regular files,
datagram sockets, pipes and semaphores are harmless.
"""

from __future__ import annotations

import importlib.machinery
import os
import socket
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from typing import Any

TASKS = "/proc/self/task"
DESCRIPTORS = "/proc/self/fd"

MOMENT = 0.05
"""Seconds."""

Leftovers = dict[str, str]
"""Identity of what was found, to its words."""


def snapshot() -> Leftovers:
    """What could not be forked in this process now. Empty where there is no /proc."""
    found: Leftovers = {}
    main = str(threading.get_native_id())
    for task in _entries(TASKS):
        if task != main:
            found[f"thread {task}"] = _thread(int(task))
    for identity, number, link in _descriptors():
        with suppress(OSError):
            if words := _descriptor(number, link):
                found[identity] = words
    return found


def present() -> set[str]:
    """The identities of all that is in this process now, harmful or not.

    A socket of the supervisor's may begin to listen at any time, in another process.
    """
    return {*snapshot(), *(identity for identity, _, _ in _descriptors())}


def _descriptors() -> Iterator[tuple[str, int, str]]:
    """Of each: identity, number, and what it is open on."""
    for name in _entries(DESCRIPTORS):
        with suppress(OSError):
            link = os.readlink(f"{DESCRIPTORS}/{name}")  # noqa: PTH115  # it is no file
            anonymous = link.startswith("anon")
            yield f"{link} {name}" if anonymous else link, int(name), link


def left_since(before: Container[str]) -> Leftovers:
    """What could not be forked in this process now and was not there `before`."""
    found = _new(before)
    if found:
        # A thread that was joined takes a moment to be gone.
        threading.Event().wait(MOMENT)
        found = _new(before)
    return found


def _new(before: Container[str]) -> Leftovers:
    return {key: words for key, words in snapshot().items() if key not in before}


def _entries(directory: str) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208  # names are enough
    except OSError:
        return []


def _thread(native: int) -> str:
    for thread in threading.enumerate():
        if thread.native_id == native:
            return f"the thread {thread.name}"
    return "a native thread"


def _descriptor(number: int, link: str) -> str:
    if link.startswith("anon_inode:"):
        kind = link.removeprefix("anon_inode:").strip("[]")
        return f"an open {kind} descriptor"
    if link.startswith("socket:"):
        with socket.socket(fileno=os.dup(number)) as sock:
            return _socket(sock)
    return ""


def _socket(sock: socket.socket) -> str:
    if sock.type != socket.SOCK_STREAM:
        return ""
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "a listening socket"
    try:
        peer = sock.getpeername()
    except OSError:
        return ""
    if isinstance(peer, tuple):
        return f"a connection to {peer[0]}:{peer[1]}"
    return "a connected unix socket"


def summary(found: Leftovers) -> str:
    """A few words on what was found; of many, the first three."""
    words = [*dict.fromkeys(found.values())]
    more = f" and {len(words) - 3} more" if len(words) > 3 else ""  # noqa: PLR2004
    return ", ".join(words[:3]) + more


@contextmanager
def blamed(modules: dict[str, str]) -> Iterator[None]:
    """While it is open, note in `modules` which import left what: words to module.

    Of nested imports it is the innermost, which is the one that did it.
    """
    known = present()
    loaders: tuple[Any, ...] = (
        importlib.machinery.SourceFileLoader,
        importlib.machinery.SourcelessFileLoader,
        importlib.machinery.ExtensionFileLoader,
    )
    originals = [(loader, loader.exec_module) for loader in loaders]

    def watched(original: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        def exec_module(self: Any, module: Any) -> None:
            try:
                original(self, module)
            finally:
                after = snapshot()
                for identity in after.keys() - known:
                    known.add(identity)
                    modules.setdefault(after[identity], module.__name__)

        return exec_module

    for loader, original in originals:
        loader.exec_module = watched(original)
    try:
        yield
    finally:
        for loader, original in originals:
            loader.exec_module = original
