"""The kinds of values that options have: how each is written, read and shown."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Literal

from djasgi.frozen import Frozen

MAX_PORT = 65_535

MOST_SHOWN = 60
"""Characters of a wrong value that are shown."""


def complaint(error: ValueError, value: object) -> str:
    """What a kind expected, and what it was given instead."""
    text = str(error)
    if not text.startswith("expected") or repr(value) in text:
        return text
    given = str(value).lower() if isinstance(value, bool) else repr(value)
    short = given if len(given) <= MOST_SHOWN else f"{given[:MOST_SHOWN]}…"
    return f"{text}, not {short}"


class Kind:
    """How a value is written. `parse` reads text, `accept` a value of a TOML file.

    Both return the value or raise ValueError with what was expected.
    """

    metavar = "TEXT"
    expected = "text"

    def parse(self, text: str) -> Any:
        return text

    def accept(self, value: object) -> Any:
        if isinstance(value, str):
            return self.parse(value)
        raise ValueError(f"expected {self.expected}")

    def show(self, value: Any) -> str:
        """`value` as a user would type it."""
        return str(value)


class Text(Kind):
    def __init__(self, metavar: str = "TEXT", expected: str = "text") -> None:
        self.metavar = metavar
        self.expected = expected

    def parse(self, text: str) -> str:
        if not text or "\0" in text:
            raise ValueError(f"expected {self.expected}")
        return text


class FilePath(Kind):
    """A path. Relative ones are made absolute by whoever knows relative to what."""

    metavar = "PATH"
    expected = "a path"

    def parse(self, text: str) -> Path:
        if not text or "\0" in text:
            raise ValueError("expected a path")
        return Path(text)


class Dotted(Kind):
    metavar = "MODULE"
    expected = "a dotted module name"

    def parse(self, text: str) -> str:
        if not all(part.isidentifier() for part in text.split(".")):
            raise ValueError("expected a dotted module name such as config.settings")
        return text


class Attribute(Kind):
    """What is in a module: `module:attribute`, or `module.attribute`."""

    metavar = "MODULE:NAME"
    expected = "module:attribute, such as asgi_library:Middleware"

    def parse(self, text: str) -> str:
        module, _, attribute = text.rpartition(":" if ":" in text else ".")
        names = [*module.split("."), *attribute.split(".")]
        if not all(map(str.isidentifier, names)):
            raise ValueError(f"expected {self.expected}")
        return text


class Choice(Kind):
    def __init__(self, *choices: str) -> None:
        self.choices = choices
        self.metavar = "[" + "|".join(choices) + "]"
        self.expected = "one of " + ", ".join(choices)

    def parse(self, text: str) -> str:
        if text.lower() in self.choices:
            return text.lower()
        raise ValueError(f"expected {self.expected}")


class Flag(Kind):
    metavar = "BOOLEAN"
    expected = "true or false"

    def parse(self, text: str) -> bool:
        match text.strip().lower():
            case "1" | "true" | "t" | "yes" | "y" | "on":
                return True
            case "0" | "false" | "f" | "no" | "n" | "off":
                return False
        raise ValueError("expected true or false")

    def accept(self, value: object) -> bool:
        if isinstance(value, bool):
            return value
        raise ValueError("expected true or false")

    def show(self, value: Any) -> str:
        return "true" if value else "false"


class Integer(Kind):
    metavar = "INTEGER"

    def __init__(self, minimum: int, maximum: int | None = None) -> None:
        self.minimum = minimum
        self.maximum = maximum
        bounds = f"of at least {minimum}"
        if maximum is not None:
            bounds = f"from {minimum} to {maximum}"
        self.expected = f"a whole number {bounds}"

    def parse(self, text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()):
            raise ValueError(f"expected {self.expected}")
        return self.accept(int(text))

    def accept(self, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"expected {self.expected}")
        if value < self.minimum or (self.maximum is not None and value > self.maximum):
            raise ValueError(f"expected {self.expected}")
        return value


class Bytes(Integer):
    metavar = "BYTES"


class Size(Bytes):
    """Bytes, also written with a unit of 1024: `512M`, `2GiB`."""

    metavar = "SIZE"

    def __init__(self) -> None:
        super().__init__(0, 2**60)
        self.expected = "a size such as 512M or 1G, or bytes"

    def parse(self, text: str) -> int:
        match = re.fullmatch(
            r"([0-9]{1,19})\s*([KMGT]?)(i?B)?",
            text.strip(),
            re.IGNORECASE | re.ASCII,
        )
        if not match:
            raise ValueError(f"expected {self.expected}")
        exponent = "KMGT".find(match[2].upper()) + 1 if match[2] else 0
        return super().accept(int(match[1]) * 1024**exponent)

    def accept(self, value: object) -> int:
        return self.parse(value) if isinstance(value, str) else super().accept(value)

    def show(self, value: Any) -> str:
        for exponent, unit in ((3, "G"), (2, "M"), (1, "K")):
            if value and value % 1024**exponent == 0:
                return f"{value // 1024**exponent}{unit}"
        return str(value)


class Seconds(Kind):
    metavar = "SECONDS"

    def __init__(self, minimum: float = 0, maximum: float = 86_400) -> None:
        self.minimum = minimum
        self.maximum = maximum
        self.expected = f"seconds from {minimum:g} to {maximum:g}"

    def parse(self, text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise ValueError(f"expected {self.expected}") from None
        return self.accept(number)

    def accept(self, value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"expected {self.expected}")
        if not math.isfinite(value) or not self.minimum <= value <= self.maximum:
            raise ValueError(f"expected {self.expected}")
        return float(value)

    def show(self, value: Any) -> str:
        return f"{value:g}"


class Workers(Integer):
    """A number of worker processes, or `auto`."""

    metavar = "NUMBER|auto"

    def __init__(self) -> None:
        super().__init__(0, 512)
        self.expected = "a whole number from 0 to 512, or auto"

    def parse(self, text: str) -> int | Literal["auto"]:  # type: ignore[override]
        if text.strip().lower() == "auto":
            return "auto"
        return super().parse(text)

    def accept(self, value: object) -> int | Literal["auto"]:  # type: ignore[override]
        if isinstance(value, str):
            return self.parse(value)
        return super().accept(value)


class ThreadRange(Kind):
    """Numbers of threads, from and to; `(0, 0)` is none."""

    metavar = "N|MIN:MAX"
    maximum = 1000
    expected = "a number of threads, MIN:MAX, or 0"

    def parse(self, text: str) -> tuple[int, int]:
        found = re.fullmatch(r"([0-9]{1,4})(?::([0-9]{1,4}))?", text.strip())
        if not found:
            raise ValueError(f"expected {self.expected}")
        least = int(found[1])
        most = least if found[2] is None else int(found[2])
        if least > most:
            raise ValueError(f"expected MIN:MAX with MIN not above MAX, not {text!r}")
        if most > self.maximum:
            raise ValueError(f"expected at most {self.maximum} threads, not {text!r}")
        return least, most

    def accept(self, value: object) -> tuple[int, int]:
        if isinstance(value, int) and not isinstance(value, bool):
            return self.parse(str(value))
        if isinstance(value, str):
            return self.parse(value)
        raise ValueError(f"expected {self.expected}")

    def show(self, value: Any) -> str:
        least, most = value
        return str(most) if least == most else f"{least}:{most}"


class Mode(Kind):
    """Permission bits, in octal."""

    metavar = "OCTAL"
    expected = 'octal permissions such as "0660"'

    def parse(self, text: str) -> int:
        if not re.fullmatch(r"(0o)?0?[0-7]{3}", text):
            raise ValueError(f"expected {self.expected}")
        return int(text, 8)

    def show(self, value: Any) -> str:
        return f"{value:04o}"


class RootPath(Kind):
    metavar = "PATH"
    expected = "a path that starts with a slash, such as /app"

    def parse(self, text: str) -> str:
        if text in ("", "/"):
            return ""
        if not re.fullmatch(r"(/[^/?#\s\x00-\x1f\x7f]+)+/?", text):
            raise ValueError(f"expected {self.expected}")
        return text.rstrip("/")

    def show(self, value: Any) -> str:
        return value or "/"


class UrlPath(Kind):
    """The path of a URL, without a query."""

    metavar = "PATH"
    expected = "a path that starts with a slash, such as /healthz"

    def parse(self, text: str) -> str:
        if not re.fullmatch(r"/[!$&'()*+,;=:@~/\w.%-]*", text, re.ASCII):
            raise ValueError(f"expected {self.expected}")
        return text


class Header(Kind):
    """One response header, `Name: value` (RFC 9110, section 5)."""

    metavar = "NAME:VALUE"
    expected = 'a header such as "X-Frame-Options: DENY"'

    def parse(self, text: str) -> tuple[str, str]:
        name, colon, value = text.partition(":")
        value = value.strip(" \t")
        if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ValueError(f"expected {self.expected}")
        if not re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", value):
            raise ValueError("expected a header value without control characters")
        if name.lower() in ("connection", "content-length", "transfer-encoding"):
            raise ValueError(f"{name} belongs to the server: it cannot be set here")
        return name, value

    def show(self, value: Any) -> str:
        return f"{value[0]}: {value[1]}"


class Setting(Kind):
    """A native setting of the chosen server, `name=value`."""

    metavar = "NAME=VALUE"
    expected = "name=value"

    def parse(self, text: str) -> tuple[str, str]:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name.isidentifier():
            raise ValueError("expected name=value")
        return name, value.strip()

    def show(self, value: Any) -> str:
        return f"{value[0]}={value[1]}"


class Bind(Frozen):
    """One place to listen on: a TCP address, a unix socket or an inherited one."""

    family: Literal["tcp", "unix", "fd"]
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1

    def __str__(self) -> str:
        match self.family:
            case "unix":
                return f"unix:{self.path}"
            case "fd":
                return f"fd://{self.fd}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class BindAddress(Kind):
    metavar = "ADDRESS"
    expected = "HOST:PORT, [IPv6]:PORT, unix:PATH or fd://NUMBER"

    def parse(self, text: str) -> Bind:
        if text.startswith("unix:") and len(text) > len("unix:"):
            return Bind("unix", path=text.removeprefix("unix:"))
        if number := re.fullmatch(r"fd://([0-9]{1,9})", text):
            return Bind("fd", fd=int(number[1]))
        address = re.fullmatch(
            r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:/\s\[\]]*)):(\d+)", text
        )
        if not address:
            raise ValueError(f"expected {self.expected}")
        if len(address[3]) > len(str(MAX_PORT)) or int(address[3]) > MAX_PORT:
            raise ValueError(f"expected a port from 0 to {MAX_PORT}")
        host = address[1] or address[2] or "::"
        return Bind("tcp", host=host, port=int(address[3]))


class Repeated(Kind):
    """An option that may be given several times: a tuple of values."""

    def __init__(self, item: Kind, separator: str = ",") -> None:
        self.item = item
        self.separator = separator
        self.metavar = item.metavar
        self.expected = f"a list, each {item.expected}"

    def parse(self, text: str) -> tuple[Any, ...]:
        parts = (part.strip() for part in text.split(self.separator))
        return tuple(self.item.parse(part) for part in parts if part)

    def accept(self, value: object) -> tuple[Any, ...]:
        if isinstance(value, str):
            return (self.item.parse(value),)
        if not isinstance(value, list):
            raise ValueError(f"expected {self.expected}")
        return tuple(self.item.accept(item) for item in value)

    def show(self, value: Any) -> str:
        return ", ".join(self.item.show(item) for item in value)


class Addresses(Repeated):
    """Addresses and networks of proxies, `*`, or nothing."""

    metavar = "ADDRESSES"

    def __init__(self) -> None:
        super().__init__(Text())
        self.metavar = "ADDRESSES"
        self.expected = "IP addresses or networks, separated by commas, or *"

    def accept(self, value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            return self.parse(value)
        addresses: tuple[str, ...] = super().accept(value)
        return self._checked(addresses)

    def parse(self, text: str) -> tuple[str, ...]:
        return self._checked(super().parse(text))

    def _checked(self, addresses: tuple[str, ...]) -> tuple[str, ...]:
        import ipaddress

        for address in addresses:
            if address != "*":
                try:
                    ipaddress.ip_network(address)
                except ValueError as error:
                    raise ValueError(f"expected {self.expected}: {error}") from None
        return addresses
