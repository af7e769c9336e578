"""The same requests to two servers in turn, and what differs in their answers."""

from __future__ import annotations

import difflib
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode, urljoin, urlsplit

from tests.real.normal import Answer, Rule, normal
from tests.support.process import TIMEOUT

HOST = "localhost"
BOUNDARY = "a-boundary-that-no-value-contains"

NOT_MODIFIED = 304
"""May say how long the content is that it does not send (RFC 9110 section 8.6)."""

Fields = list[tuple[str, str]]
Files = Mapping[str, tuple[str, bytes, str]]


class Page(HTMLParser):
    """The links and the forms of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.forms: list[Fields] = []
        self._select = self._area = ""
        self._chosen: str | None = None
        self._value = ""
        self.feed(text)

    def handle_starttag(
        self, tag: str, given: Sequence[tuple[str, str | None]]
    ) -> None:
        attributes = {name: value or "" for name, value in given}
        name, value = attributes.get("name", ""), attributes.get("value", "")
        self.links += [attributes[n] for n in ("href", "src") if n in attributes]
        if tag == "form":
            self.forms.append([])
        elif tag == "input" and name:
            kind = attributes.get("type", "text")
            if kind in ("submit", "button", "file", "image", "reset"):
                return
            if kind in ("checkbox", "radio"):
                if "checked" not in attributes:
                    return
                value = value or "on"
            self._add(name, value)
        elif tag == "textarea":
            self._area, self._value = name, ""
        elif tag == "select":
            self._select, self._chosen = name, None
        elif tag == "option" and (self._chosen is None or "selected" in attributes):
            self._chosen = value

    def handle_data(self, data: str) -> None:
        if self._area:
            self._value += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea" and self._area:
            # The first line break is none of its value (HTML, 13.1.2.5).
            self._add(self._area, self._value.removeprefix("\n"))
            self._area = ""
        elif tag == "select" and self._select:
            self._add(self._select, self._chosen or "")
            self._select = ""

    def _add(self, name: str, value: str) -> None:
        if not self.forms:
            self.forms.append([])
        self.forms[-1].append((name, value))


def form_of(page: Answer, names: Sequence[str]) -> Fields:
    """The fields of the first form that has a CSRF token and all of `names`."""
    wanted = {"csrfmiddlewaretoken", *names}
    for fields in Page(page.text).forms:
        if wanted <= {name for name, _ in fields}:
            return fields
    raise AssertionError(f"no form with {', '.join(sorted(wanted))}")


class Browser:
    """One client of one server: its cookies, and the last answer to each path."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookies: dict[str, str] = {}

    def send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b""
    ) -> Answer:
        """The answer; the framing of its body is checked."""
        fields = {"Host": HOST, "Connection": "close", **headers}
        if self.cookies:
            pairs = (f"{name}={value}" for name, value in self.cookies.items())
            fields["Cookie"] = "; ".join(pairs)
        if body or method == "POST":
            fields["Content-Length"] = str(len(body))
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        with socket.create_connection(("127.0.0.1", self.port), TIMEOUT) as sock:
            sock.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            with sock.makefile("rb") as stream:
                raw = stream.read()
        head, _, body = raw.partition(b"\r\n\r\n")
        answer = Answer(int(head.split(b" ", 2)[1]), head + b"\r\n", body)
        if answer.field("transfer-encoding") == "chunked" and method != "HEAD":
            answer = replace(answer, body=_dechunked(body))
        elif (length := answer.field("content-length")) and method != "HEAD":
            assert int(length) == len(body) or answer.status == NOT_MODIFIED, answer
        for line in answer.fields("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                if morsel.value and morsel["max-age"] != "0":
                    self.cookies[name] = morsel.value
                else:
                    self.cookies.pop(name, None)
        return answer


def _dechunked(framed: bytes) -> bytes:
    """The body in a chunked one, which has to be whole (RFC 9112 section 7.1)."""
    body = b""
    while True:
        size, _, framed = framed.partition(b"\r\n")
        length = int(size, 16)
        chunk, end, framed = framed[:length], framed[length:][:2], framed[length + 2 :]
        assert (len(chunk), end) == (length, b"\r\n"), "a chunk is not whole"
        if not length:
            assert not framed, "something comes after the last chunk"
            return body
        body += chunk


def encoded(fields: Fields, files: Files) -> tuple[str, bytes]:
    """A form as its content type and body."""
    if not files:
        return "application/x-www-form-urlencoded", urlencode(fields).encode()
    parts = []
    for name, value in fields:
        head = f'Content-Disposition: form-data; name="{name}"'
        parts.append(f"{head}\r\n\r\n{value}".encode())
    for name, (filename, content, kind) in files.items():
        head = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'
        parts.append(f"{head}\r\nContent-Type: {kind}\r\n\r\n".encode() + content)
    mark = f"--{BOUNDARY}".encode()
    body = b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts)
    return f"multipart/form-data; boundary={BOUNDARY}", body + mark + b"--\r\n"


@dataclass
class Both:
    """Two servers that are asked the same, one after the other.

    The answers are compared at once. A status that was not expected is a difference, too:
    two servers that fail alike prove nothing.
    """

    folders: tuple[Path, Path]
    ports: tuple[int, int]
    rules: list[Rule]
    pages: int = 0
    differences: list[str] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    browsers: tuple[Browser, Browser] = field(init=False)

    def __post_init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Be somebody new: without cookies."""
        self.browsers = (Browser(self.ports[0]), Browser(self.ports[1]))

    def get(
        self,
        path: str,
        status: int | None = 200,
        *,
        method: str = "GET",
        **headers: str,
    ) -> Answer:
        """GET `path` from both; the answer of the first."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        answers = [each.send(method, path, fields) for each in self.browsers]
        self._compare(f"{method} {path}", answers, status)
        return answers[0]

    def head(self, path: str, status: int = 200) -> None:
        """HEAD `path`."""
        self.get(path, status, method="HEAD")

    def conditional(self, path: str) -> None:
        """GET `path`, and again if it has changed, which it has not."""
        first = self.get(path)
        if etag := first.field("etag"):
            self.get(path, 304, If_None_Match=etag)
            self.get(path, 200, If_None_Match='"another"')
        if changed := first.field("last-modified"):
            self.get(path, 304, If_Modified_Since=changed)
        if not etag and not changed:
            self.differences.append(f"GET {path}: neither ETag nor Last-Modified")

    def post(
        self,
        path: str,
        fields: Mapping[str, str] | None = None,
        *,
        status: int = 302,
        form: str | None = None,
        token: bool = True,
        files: Files | None = None,
        follow: bool = True,
        **headers: str,
    ) -> Answer:
        """Fill in and send the form of the page `form` (or `path`) to `path`.

        Without `token` the form is not asked for, and nothing but `fields` is sent.
        """
        fields = dict(fields or {})
        filled: list[Fields] = [[*fields.items()], [*fields.items()]]
        if token:
            page = form or path
            pages = [each.send("GET", page, {}) for each in self.browsers]
            self._compare(f"GET {page}", pages, 200)
            for index, answer in enumerate(pages):
                found = form_of(answer, [n for n in fields if not n.startswith("+")])
                kept = [pair for pair in found if pair[0] not in fields]
                added = [(n.removeprefix("+"), v) for n, v in fields.items()]
                filled[index] = kept + added
        answers = []
        for browser, values in zip(self.browsers, filled, strict=True):
            kind, body = encoded(values, files or {})
            sent = {"Content-Type": kind} | {
                name.replace("_", "-"): value for name, value in headers.items()
            }
            answers.append(browser.send("POST", path, sent, body))
        self._compare(f"POST {path}", answers, status)
        if follow and status == 302 and answers[0].status == 302:
            self.get(urljoin(path, answers[0].field("location")))
        return answers[0]

    def spider(self, *paths: str, most: int, without: str) -> None:
        """GET `paths` and what they link to, on this host, as far as `most` pages.

        What matches `without` is left out. Of a page that redirects or is missing it is
        compared that it does so for both.
        """
        waiting = list(paths)
        seen = set(waiting)
        for path in waiting:
            answer = self.get(path, None)
            links = [answer.field("location")]
            if answer.field("content-type").startswith("text/html"):
                links += Page(answer.text).links
            for link in links:
                parts = urlsplit(urljoin(f"http://{HOST}{path}", link.strip()))
                target = parts._replace(scheme="", netloc="", fragment="").geturl()
                if (
                    link
                    and parts.netloc == HOST
                    and target not in seen
                    and len(waiting) < most
                    and not re.search(without, target)
                ):
                    seen.add(target)
                    waiting.append(target)

    def _compare(
        self, what: str, answers: Sequence[Answer], status: int | None
    ) -> None:
        self.pages += 1
        code = str(answers[0].status)
        self.statuses[code] = self.statuses.get(code, 0) + 1
        theirs, ours = (
            normal(
                answer,
                {str(folder): "/PROJECT", f"{HOST}:{port}": f"{HOST}:PORT"},
                self.rules,
            )
            for answer, folder, port in zip(
                answers, self.folders, self.ports, strict=True
            )
        )
        if theirs != ours:
            self.differences.append(f"{what}:\n{_difference(theirs, ours)}")
        if status is None and answers[0].status >= 500:
            self.differences.append(f"{what}: {code}\n{answers[0].text[:2000]}")
        if status is not None and answers[0].status != status:
            self.differences.append(f"{what}: {code} instead of {status}")


def _difference(theirs: Answer, ours: Answer) -> str:
    theirs_, ours_ = (
        re.split(r"\r?\n|(?<=>)", (each.head + each.body).decode("latin-1"))
        for each in (theirs, ours)
    )
    found = difflib.unified_diff(theirs_, ours_, "django", "djasgi", n=0, lineterm="")
    return "\n".join(f"    {line[:300]}" for line in list(found)[:20])
