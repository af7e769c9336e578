"""What may differ between two answers to the same request: tokens, dates, addresses.

Every rule is here. Each takes away the token alone, never the text around it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Answer:
    """An HTTP response as it came off the wire; the body without its framing."""

    status: int
    head: bytes
    body: bytes

    def field(self, name: str) -> str:
        """The first header of that name, or nothing."""
        return next(iter(self.fields(name)), "")

    def fields(self, name: str) -> list[str]:
        """The headers of that name."""
        found = re.findall(rb"(?im)^%s: *(.*?)\r$" % name.encode(), self.head)
        return [value.decode("latin-1") for value in found]

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


StandIn = str | Callable[[re.Match[bytes]], bytes]
Rule = tuple[str, StandIn]
"""What may differ, as a regular expression, and what is put there."""


def in_order(found: re.Match[bytes]) -> bytes:
    """The same list, sorted: for what comes from a set."""
    return b", ".join(sorted(found[0].split(b", ")))


def _rules(*rules: Rule) -> list[tuple[re.Pattern[bytes], Any]]:
    return [
        (re.compile(text.encode()), put.encode() if isinstance(put, str) else put)
        for text, put in rules
    ]


HEAD = _rules(
    # The second in which it was sent (RFC 9110 section 6.6.1).
    (r"(?m)^(date: )[^\r]+", r"\1DATE"),
    # The same second, of what nobody may cache (django.utils.cache).
    (r"(?m)^(expires: )[^\r]+", r"\1DATE"),
    # For how many seconds a page has been in the cache, and may stay in others: at most
    # a minute, after which django-cms renders it anew.
    (r"(?m)^(age: )[1-5]?\d(?=\r)", r"\1SECONDS"),
    (r"(?m)^(cache-control: max-age=)(?:[1-5]?\d|60)(?=\r)", r"\1SECONDS"),
    # Random, and so are the dates on which they end.
    (r"(?m)^(set-cookie: (?:csrftoken|sessionid)=)\w{32,64}(?=;)", r"\1TOKEN"),
    (r"(?m)^(set-cookie: [^\r]*; expires=)[^;\r]+", r"\1DATE"),
    # The second in which it was signed, and so the signature; the messages remain.
    (r"(?m)^(set-cookie: messages=[^:;\r]+:)\w{6}:[\w-]{43}(?=;)", r"\1SIGNED"),
)

CELL = r'</td>\s*<td class="code"><pre>&#x27;'
"""Between a name and its value, in the tables of Django's debug page."""

BODY = _rules(
    # Masked anew by each request (django.middleware.csrf).
    (r'(name="csrfmiddlewaretoken" value=")\w{64}(?=")', r"\1TOKEN"),
    # A moment in a form of Django's admin.
    (r'(name="(?:initial-)?\w+_1" value=")\d\d:\d\d:\d\d(?=")', r"\1TIME"),
    # A moment, or how long ago it was, as templates and CSV write it.
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{6})?\+00:00", "MOMENT"),
    (r"[A-Z][a-z]{2,8}\.? \d{1,2}, \d{4},? \d{1,2}(?::\d\d)? [ap]\.m\.", "MOMENT"),
    ("\\b\\d+\xa0(?:second|minute|hour)s?(?= ago)", "AGE"),
    # What Django's admin shows of a salt and a hash.
    (r"(<bdi>)[\w+/]{6}(?=\*{16,}</bdi>)", r"\1TOKEN"),
    # Of Django's debug page: the functions that called the view are the handler's, and
    # djasgi's hides its own, as the README says.
    (r'(?s)(<div id="traceback">).*?(?=<div id="requestinfo">)', r"\1FRAMES"),
    # ... and the time, the ports and the tokens of the request, as a table.
    (
        rf"(<td>(?:csrftoken|sessionid|CSRF_COOKIE){CELL})\w{{32,64}}(?=&#x27;)",
        r"\1TOKEN",
    ),
    (rf"(<td>csrfmiddlewaretoken{CELL})\w{{64}}(?=&#x27;)", r"\1TOKEN"),
    (r"(?s)(<th [^>]*>Server time:</th>\s*<td>)[^<]+", r"\1DATE"),
    (r"(<td>(?:SERVER|REMOTE)_PORT</td>\s*<td class=\"code\"><pre>)[^<]+", r"\1PORT"),
)


def normal(answer: Answer, own: dict[str, str], more: list[Rule]) -> Answer:
    """The answer without what may differ.

    `own` are texts that belong to one server alone, its folder or port, and what stands
    for them; `more` are rules of the project for bodies.
    """
    head, body = answer.head, answer.body
    length = answer.field("content-length")
    measured = bool(length) and bool(body) and int(length) == len(body)
    for text, stand_in in own.items():
        head = head.replace(text.encode(), stand_in.encode())
        body = body.replace(text.encode(), stand_in.encode())
    for pattern, stand_in_ in HEAD:
        head = pattern.sub(stand_in_, head)
    for pattern, stand_in_ in [*BODY, *_rules(*more)]:
        body = pattern.sub(stand_in_, body)
    if body != answer.body:
        # A digest of content with a token is a token (ConditionalGetMiddleware).
        head = re.sub(rb'(?m)^(etag: )"[0-9a-f]{32}"', rb"\1TOKEN", head)
        if measured:
            head = re.sub(rb"(?m)^(content-length: )\d+", rb"\g<1>%d" % len(body), head)
    return replace(answer, head=head, body=body)
