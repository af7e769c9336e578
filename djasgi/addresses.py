"""Where to listen: which way of saying so wins."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from djasgi.errors import UsageError
from djasgi.kinds import Bind
from djasgi.options import OPTIONS
from djasgi.values import Layers, Value

FIRST_INHERITED_FD = 3
"""sd_listen_fds(3): inherited sockets start at descriptor 3."""


def addresses(
    values: dict[str, Value], layers: Layers, environ: Mapping[str, str]
) -> tuple[dict[str, Value], tuple[Bind, ...]]:
    """Where to listen: one way of saying so wins, the others are shown as shadowed."""
    ways = {"tcp": ("host", "port"), "bind": ("bind",), "uds": ("uds",), "fd": ("fd",)}
    ranks: dict[str, int] = {}
    for way, names in ways.items():
        given = [r for name in names if (r := layers.rank(name)) is not None]
        if given:
            ranks[way] = min(given)
    platform = 2
    inherited = _inherited_descriptors(environ)
    if inherited and min(ranks.values(), default=platform) >= platform:
        values["fd"] = Value(inherited[0], "LISTEN_FDS")
        return _shadowed(values, "fd"), tuple(Bind("fd", fd=fd) for fd in inherited)
    if inherited and not values["fd"].asked:
        fds = ", ".join(f"fd://{fd}" for fd in inherited)
        values["fd"] = Value(fds, "LISTEN_FDS")
    if not ranks:
        host, port = values["host"], values["port"]
        return values, (Bind("tcp", host=host.value, port=port.value),)
    best = min(ranks.values())
    winners = [way for way, rank in ranks.items() if rank == best]
    if len(winners) > 1:
        said = [
            values[name].origin
            for way in winners
            for name in ways[way]
            if layers.rank(name) == best
        ]
        raise UsageError(
            f"{' and '.join(said)} contradict each other: each says where to listen.",
            hint="Keep one, or give several addresses with --bind.",
        )
    match winners[0]:
        case "bind":
            binds = values["bind"].value
        case "uds":
            binds = (Bind("unix", path=str(values["uds"].value)),)
        case "fd":
            binds = (Bind("fd", fd=values["fd"].value),)
        case _:
            if values["port"].origin == "PORT" and not values["host"].asked:
                values["host"] = Value("::", "PORT")
            host, port = values["host"], values["port"]
            binds = (Bind("tcp", host=host.value, port=port.value),)
    return _shadowed(values, *ways[winners[0]]), binds


def _shadowed(values: dict[str, Value], *kept: str) -> dict[str, Value]:
    """`values` with the other ways of saying where to listen turned into notes."""
    lost = []
    for name in ("host", "port", "bind", "uds", "fd"):
        value = values[name]
        if name not in kept and value.asked:
            shown = OPTIONS[name].show(value.value)
            lost.append((shown, value.origin))
            values[name] = Value(OPTIONS[name].default)
    first = values[kept[-1]]
    values[kept[-1]] = first.replaced(instead_of=(*first.instead_of, *lost))
    return values


def refuse_idle_mode(values: Mapping[str, Value], binds: Sequence[Bind]) -> None:
    mode = values["uds_mode"]
    unix = any(bind.family == "unix" for bind in binds)
    spec = OPTIONS["uds_mode"]
    if not unix and mode.origin in (spec.flag, spec.variable):
        raise UsageError(
            f"{mode.origin} is for a unix socket, and there is none.",
            hint="Give one with --uds PATH.",
        )


def _inherited_descriptors(environ: Mapping[str, str]) -> list[int]:
    """The sockets of systemd's socket activation, if they are meant for this process."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    text = environ.get("LISTEN_FDS", "")
    if not text.isdecimal():
        return []
    return [*range(FIRST_INHERITED_FD, FIRST_INHERITED_FD + int(text))]
