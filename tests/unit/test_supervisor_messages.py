from __future__ import annotations

import errno
import json
import os
import threading
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st

from djasgi.errors import DjasgiError, ListenError, ProjectError, UsageError
from djasgi.supervisor.children import MOST_STACK_LINES, Child
from djasgi.supervisor.messages import (
    MAX_MESSAGE,
    MAX_TEXT,
    Inbox,
    as_error,
    decode_failure,
    encode_failure,
    send,
)

Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
Messages = st.lists(st.dictionaries(st.text(), Json, max_size=3), max_size=5)


@given(messages=Messages, cuts=st.lists(st.integers(0, 300), max_size=10))
def test_messages_are_read_from_any_pieces(
    messages: list[dict[str, Any]], cuts: list[int]
) -> None:
    data = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    inbox = Inbox()

    pieces = [data[a:b] for a, b in pairwise(places)]

    assert [m for piece in pieces for m in inbox.feed(piece)] == messages
    assert inbox.rest == b""


@given(data=st.binary())
def test_any_line_that_is_no_message_is_a_line(data: bytes) -> None:
    inbox = Inbox()

    got = inbox.feed(data + b"\n")

    assert len(got) == data.count(b"\n") + 1
    assert all(isinstance(message, dict) for message in got)


def test_stacks_and_messages_share_a_pipe() -> None:
    stack = b'Thread 0x1 (most recent call first):\n  File "a.py", line 1 in f\n'

    got = Inbox().feed(stack + b'{"type": "ready"}\n[]\n{"open\n')

    assert [m.get("line", m.get("type")) for m in got] == [
        "Thread 0x1 (most recent call first):",
        '  File "a.py", line 1 in f',
        "ready",
        "[]",
        '{"open',
    ]


def test_deep_nesting_is_a_line() -> None:
    deep = b'{"a":' * 100_000 + b"\n"

    assert [*Inbox().feed(deep)[0]] == ["line"]


def test_a_message_without_an_end_does_not_fill_the_memory() -> None:
    inbox = Inbox()
    for _ in range(100):
        inbox.feed(b"x" * 100_000)

    assert len(inbox.rest) <= MAX_MESSAGE
    assert inbox.feed(b'\n{"type": "ready"}\n')[1:] == [{"type": "ready"}]


def child_of_pipe() -> tuple[Child, int]:
    read, write = os.pipe()
    os.set_blocking(read, False)
    return Child(1, 1, 99, read), write


def test_a_child_keeps_its_stacks_and_its_failure_and_passes_on_the_rest() -> None:
    child, write = child_of_pipe()
    send(write, {"type": "ready"})
    os.write(write, b"Thread 1\n")
    send(write, encode_failure(ProjectError("No shop.", hint="Mend.")))

    messages = child.read()

    assert [message["type"] for message in messages] == ["ready", "failed"]
    assert child.stacks == ["Thread 1"]
    assert str(child.failure) == str(ProjectError("No shop.", hint="Mend."))
    assert child.read() == []
    os.close(write)
    assert child.read() == []
    assert child.pipe is None, "it closes at the end"


def test_endless_stacks_do_not_fill_the_memory() -> None:
    child, write = child_of_pipe()
    for _ in range(5):
        os.write(write, b"x\n" * 1000)
        child.read()

    assert len(child.stacks) <= MOST_STACK_LINES + 1
    os.close(write)
    child.close()


def test_a_long_message_passes_a_full_pipe_in_pieces() -> None:
    child, write = child_of_pipe()
    message = {"type": "long", "text": "x" * 500_000}
    writer = threading.Thread(target=send, args=(write, message))
    writer.start()
    got: list[dict[str, Any]] = []
    while not got:
        got += child.read()
    writer.join()

    assert got == [message]
    os.close(write)
    child.close()


def test_a_message_to_a_supervisor_that_is_gone_is_dropped() -> None:
    read, write = os.pipe()
    os.close(read)

    send(write, {"type": "ready"})

    os.close(write)


@pytest.mark.parametrize("kind", [UsageError, ProjectError, ListenError, DjasgiError])
def test_a_failure_arrives_as_the_error_it_was(kind: type[DjasgiError]) -> None:
    sent = kind("Nö.", hint="Do.", details="a\nb")

    got = decode_failure(json.loads(json.dumps(encode_failure(sent))))

    assert type(got) is kind
    assert (got.message, got.hint, got.details) == ("Nö.", "Do.", "a\nb")


@pytest.mark.parametrize("exit_code", [None, [], "3", 77])
def test_a_failure_with_an_unknown_exit_code_is_a_plain_one(exit_code: object) -> None:
    error = decode_failure({"type": "failed", "exit_code": exit_code})

    assert type(error) is DjasgiError


def test_of_a_long_failure_the_end_is_kept() -> None:
    message = encode_failure(ProjectError("m", hint="", details="x" * MAX_TEXT + "end"))

    assert message["details"].endswith("end")
    assert len(message["details"]) == MAX_TEXT


def test_whatever_is_raised_is_an_error_for_people() -> None:
    known = ProjectError("No.", hint="")
    assert as_error(known) is known
    assert type(as_error(OSError(errno.EMFILE, "many"))) is ListenError
    with pytest.raises(ZeroDivisionError) as caught:
        divmod(1, 0)
    told = as_error(caught.value)
    assert told.message.startswith("Serving failed: ZeroDivisionError: ")
    assert "divmod(1, 0)" in told.details
