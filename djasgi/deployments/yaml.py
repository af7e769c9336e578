"""The part of YAML 1.2 that deployment files are written in, with line numbers.

Block mappings and sequences, flow sequences and mappings on one line, quoted and plain
scalars, block scalars, anchors, aliases and merge keys. What is beyond that raises
ValueError: such a file is named and skipped, never half understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_DEPTH = 40


@dataclass(slots=True)
class Node:
    """A value and the line it begins on."""

    line: int
    text: str | None = None
    items: list[Node] | None = None
    keys: dict[str, Node] | None = None
    anchors: dict[str, Node] = field(default_factory=dict, repr=False)

    def get(self, *path: str) -> Node | None:
        """The value below these keys, if all of them are there."""
        node: Node | None = self
        for key in path:
            node = node.keys.get(key) if node and node.keys else None
        return node

    def scalar(self, *path: str) -> str | None:
        node = self.get(*path)
        return node.text if node else None

    def each(self, *path: str) -> list[Node]:
        """The items of the sequence there, or the one scalar as a sequence."""
        node = self.get(*path)
        if node is None:
            return []
        if node.items is not None:
            return node.items
        return [node] if node.text is not None else []

    def pairs(self, *path: str) -> Iterator[tuple[str, Node]]:
        """The entries of a mapping, or of a sequence of NAME=value."""
        node = self.get(*path)
        if node is None:
            return
        yield from (node.keys or {}).items()
        for item in node.items or ():
            if item.text is not None:
                name, _, value = item.text.partition("=")
                yield name, Node(item.line, value)


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    indent: int
    text: str


_KEY = re.compile(
    r"""(?P<key>"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s#'"\[\]{},&*!|>%@-][^#]*?|-[^\s#:][^#:]*?)\s*:(?=\s|$)"""
)
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "/": "/", "0": "\0"}


def parse(text: str) -> Node:
    """The first document of `text`. Raises ValueError for what is not understood."""
    return _Parser(text).document()


class _Parser:
    def __init__(self, text: str) -> None:
        self.raw = text.split("\n")
        self.anchors: dict[str, Node] = {}
        self.lines = self._lines()
        self.at = 0

    def _lines(self) -> list[_Line]:
        lines: list[_Line] = []
        for number, raw in enumerate(self.raw, start=1):
            text = raw.rstrip("\r ")
            bare = text.lstrip(" ")
            if text == "---" and not lines:
                continue
            if text in ("---", "..."):
                break
            if bare and not bare.startswith("#") and not text.startswith("%"):
                lines.append(_Line(number, len(text) - len(bare), bare))
        return lines

    def document(self) -> Node:
        if not self.lines:
            return Node(1)
        node = self._block(self.lines[0].indent, 0)
        if self.at < len(self.lines):
            raise ValueError(f"line {self.lines[self.at].number}: unexpected indent")
        return node

    def _peek(self) -> _Line | None:
        return self.lines[self.at] if self.at < len(self.lines) else None

    def _block(self, indent: int, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise ValueError("nested too deep")
        line = self.lines[self.at]
        if line.text.startswith("\t"):
            raise ValueError(f"line {line.number}: a tab indents")
        if line.text == "-" or line.text.startswith("- "):
            return self._sequence(indent, depth)
        if _KEY.match(line.text):
            return self._mapping(indent, depth)
        self.at += 1
        return self._value(line.text, line, indent, depth)

    def _sequence(self, indent: int, depth: int) -> Node:
        node = Node(self.lines[self.at].number, items=[])
        while (line := self._peek()) and line.indent == indent:
            if line.text != "-" and not line.text.startswith("- "):
                break
            rest = line.text[1:].lstrip(" ")
            assert node.items is not None  # noqa: S101  # it was made with them
            if not rest or rest.startswith("#"):
                self.at += 1
                node.items.append(self._nested(indent, line, depth))
            elif _KEY.match(rest):
                inner = indent + len(line.text) - len(rest)
                self.lines[self.at] = _Line(line.number, inner, rest)
                node.items.append(self._block(inner, depth + 1))
            else:
                self.at += 1
                node.items.append(self._value(rest, line, indent, depth))
        return node

    def _mapping(self, indent: int, depth: int) -> Node:
        node = Node(self.lines[self.at].number, keys={})
        merged: list[Node] = []
        while (line := self._peek()) and line.indent == indent:
            match = _KEY.match(line.text)
            if match is None:
                raise ValueError(f"line {line.number}: expected a key")
            key = _unquoted(match["key"])
            rest = line.text[match.end() :].strip()
            self.at += 1
            value = (
                self._value(rest, line, indent, depth)
                if rest and not rest.startswith("#")
                else self._nested(indent, line, depth, same=True)
            )
            if key == "<<":
                merged += value.items or [value]
            elif node.keys is not None:
                node.keys[key] = value
        for other in merged:
            for key, value in (other.keys or {}).items():
                if node.keys is not None:
                    node.keys.setdefault(key, value)
        return node

    def _nested(
        self, indent: int, line: _Line, depth: int, *, same: bool = False
    ) -> Node:
        following = self._peek()
        if following is None or following.indent < indent:
            return Node(line.number)
        if following.indent == indent:
            # A sequence may stand at the indent of its own key.
            if same and (following.text == "-" or following.text.startswith("- ")):
                return self._sequence(indent, depth + 1)
            return Node(line.number)
        return self._block(following.indent, depth + 1)

    def _value(self, text: str, line: _Line, indent: int, depth: int) -> Node:
        if anchor := re.match(r"&([^\s\[\]{},]+)\s*", text):
            rest = text[anchor.end() :]
            node = (
                self._value(rest, line, indent, depth)
                if rest and not rest.startswith("#")
                else self._nested(indent, line, depth, same=True)
            )
            self.anchors[anchor[1]] = node
            return node
        if alias := re.match(r"\*([^\s\[\]{},]+)\s*(#.*)?$", text):
            if alias[1] not in self.anchors:
                raise ValueError(f"line {line.number}: unknown alias")
            return self.anchors[alias[1]]
        if tag := re.match(r"!\S*\s*", text):
            return self._value(text[tag.end() :], line, indent, depth)
        if re.match(r"[|>][0-9+-]*\s*(#.*)?$", text):
            return self._scalar_block(text[0], line, indent)
        if text[:1] in ("[", "{"):
            return self._flow(text, line, indent)
        return self._plain(text, line, indent)

    def _scalar_block(self, style: str, line: _Line, indent: int) -> Node:
        """A literal or folded block: the raw lines that are indented further."""
        parts: list[str] = []
        end = line.number
        for raw in self.raw[line.number :]:
            bare = raw.strip()
            if bare and len(raw) - len(raw.lstrip(" ")) <= indent:
                break
            parts.append(bare)
            end += 1
        while (following := self._peek()) and following.number <= end:
            self.at += 1
        joined = ("\n" if style == "|" else " ").join(parts)
        return Node(line.number + 1, joined.strip())

    def _plain(self, text: str, line: _Line, indent: int) -> Node:
        """A scalar, which may go on over the following, deeper lines."""
        parts = [text]
        quote = text[:1] if text[:1] in ('"', "'") else ""
        while (following := self._peek()) and following.indent > indent:
            if quote and _closed(" ".join(parts), quote):
                break
            if not quote and _KEY.match(following.text):
                raise ValueError(f"line {following.number}: unexpected key")
            parts.append(following.text)
            self.at += 1
        joined = " ".join(parts)
        if quote and not _closed(joined, quote):
            raise ValueError(f"line {line.number}: a quote is not closed")
        return Node(line.number, _scalar(joined))

    def _flow(self, text: str, line: _Line, indent: int) -> Node:
        while (following := self._peek()) and not _balanced(text):
            text += " " + following.text
            self.at += 1
        node, rest = _Flow(text, line.number).value(0)
        if text[rest:].strip() and not text[rest:].strip().startswith("#"):
            raise ValueError(f"line {line.number}: text after a flow value")
        return node


class _Flow:
    """`[a, b]` and `{a: b}`."""

    def __init__(self, text: str, line: int) -> None:
        self.text = text
        self.line = line

    def value(self, at: int, depth: int = 0) -> tuple[Node, int]:
        if depth > MAX_DEPTH:
            raise ValueError("nested too deep")
        at = self._skip(at)
        opening = self.text[at : at + 1]
        if opening == "[":
            items: list[Node] = []
            at = self._skip(at + 1)
            while self.text[at : at + 1] != "]":
                item, at = self.value(at, depth + 1)
                items.append(item)
                at = self._comma(at, "]")
            return Node(self.line, items=items), at + 1
        if opening == "{":
            keys: dict[str, Node] = {}
            at = self._skip(at + 1)
            while self.text[at : at + 1] != "}":
                key, at = self._scalar(at, ":,}")
                value = Node(self.line)
                if self.text[at : at + 1] == ":":
                    value, at = self.value(at + 1, depth + 1)
                keys[key] = value
                at = self._comma(at, "}")
            return Node(self.line, keys=keys), at + 1
        text, at = self._scalar(at, ",]}")
        return Node(self.line, text), at

    def _skip(self, at: int) -> int:
        while self.text[at : at + 1] in (" ", "\t"):
            at += 1
        return at

    def _comma(self, at: int, closing: str) -> int:
        at = self._skip(at)
        if self.text[at : at + 1] == ",":
            return self._skip(at + 1)
        if self.text[at : at + 1] == closing:
            return at
        raise ValueError(f"line {self.line}: expected , or {closing}")

    def _scalar(self, at: int, ends: str) -> tuple[str, int]:
        at = self._skip(at)
        quoted = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^']|'')*'""").match(
            self.text, at
        )
        if quoted:
            return _unquoted(quoted[0]), self._skip(quoted.end())
        end = at
        while end < len(self.text) and self.text[end] not in ends:
            end += 1
        return self.text[at:end].strip(), end


def _balanced(text: str) -> bool:
    bare = re.sub(r""""(?:[^"\\]|\\.)*"|'(?:[^']|'')*'""", "", text)
    opened = bare.count("[") + bare.count("{")
    return opened <= bare.count("]") + bare.count("}")


def _closed(text: str, quote: str) -> bool:
    pattern = r'"(?:[^"\\]|\\.)*"' if quote == '"' else r"'(?:[^']|'')*'"
    return re.match(pattern, text) is not None


def _scalar(text: str) -> str:
    if match := re.match(r""""(?:[^"\\]|\\.)*"|'(?:[^']|'')*'""", text):
        return _unquoted(match[0])
    return re.split(r"\s#", text, maxsplit=1)[0].strip()


def _unquoted(text: str) -> str:
    if text[:1] == "'":
        return text[1:-1].replace("''", "'")
    if text[:1] == '"':
        return re.sub(
            r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), text[1:-1], flags=re.DOTALL
        )
    return text.strip()
