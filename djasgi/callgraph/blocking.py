"""Calls that hold the event loop for as long as they wait."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from djasgi.callgraph.names import Function, Index

_VERBS = ("get", "post", "put", "patch", "delete", "head", "options", "request")

CALLS: dict[str, str] = {
    "time.sleep": "await asyncio.sleep(…)",
    **{f"requests.{v}": "httpx.AsyncClient, or await asyncio.to_thread(…)" for v in _VERBS},
    **{f"httpx.{v}": "httpx.AsyncClient" for v in (*_VERBS, "stream")},
    "urllib.request.urlopen": "httpx.AsyncClient, or await asyncio.to_thread(…)",
    "urllib.request.urlretrieve": "httpx.AsyncClient, or await asyncio.to_thread(…)",
    **{
        f"subprocess.{name}": "asyncio.create_subprocess_exec"
        for name in ("run", "call", "check_call", "check_output", "getoutput",
                     "getstatusoutput")
    },
    "os.system": "asyncio.create_subprocess_shell",
    "os.popen": "asyncio.create_subprocess_shell",
    "socket.create_connection": "asyncio.open_connection",
    "smtplib.SMTP": "await asyncio.to_thread(…)",
    "smtplib.SMTP_SSL": "await asyncio.to_thread(…)",
    **{
        f"django.core.mail.{name}": f"await sync_to_async({name})(…)"
        for name in ("send_mail", "send_mass_mail", "mail_admins", "mail_managers")
    },
    "django.core.management.call_command": "await sync_to_async(call_command)(…)",
}  # fmt: skip
"""Functions that wait for a network, a process or a clock, and what does not."""

CLIENTS: dict[str, str] = {
    "requests.Session": "httpx.AsyncClient",
    "requests.session": "httpx.AsyncClient",
    "httpx.Client": "httpx.AsyncClient",
    "urllib3.PoolManager": "httpx.AsyncClient",
    "boto3.client": "aioboto3, or await asyncio.to_thread(…)",
    "boto3.resource": "aioboto3, or await asyncio.to_thread(…)",
    "redis.Redis": "redis.asyncio.Redis",
    "redis.StrictRedis": "redis.asyncio.Redis",
    "redis.from_url": "redis.asyncio.from_url",
    "openai.OpenAI": "openai.AsyncOpenAI",
    "anthropic.Anthropic": "anthropic.AsyncAnthropic",
}
"""Classes whose every method waits for a network."""

_WITHOUT_NETWORK = {
    *("close", "with_options", "mount", "pipeline", "copy", "get_paginator", "update"),
    *("Object", "Bucket", "Table", "register_script", "lock", "pubsub", "client"),
}


@dataclass(frozen=True, slots=True)
class Blocking:
    """A call that blocks, and what to use instead."""

    call: ast.Call
    what: str
    instead: str


def blocking_calls(function: Function, index: Index) -> Iterator[Blocking]:
    """The calls in a function that block whoever runs it."""
    for node in function.nodes:
        if not isinstance(node, ast.Call):
            continue
        path = index.dotted(node.func, function)
        if path in CALLS:
            if path == "time.sleep" and _is_zero(node):
                continue
            yield Blocking(node, path, CALLS[path])
        elif client := _client(node, function, index):
            name, method = client
            yield Blocking(node, f"{name} … {method}", CLIENTS[name])


def _is_zero(call: ast.Call) -> bool:
    match call.args:
        case [ast.Constant(value=0 | 0.0)]:
            return True
    return False


def _client(call: ast.Call, function: Function, index: Index) -> tuple[str, str] | None:
    """The class and method of a call on an instance of one of `CLIENTS`."""
    if not isinstance(call.func, ast.Attribute):
        return None
    method = call.func.attr
    if method in _WITHOUT_NETWORK:
        return None
    root: ast.expr = call.func.value
    while isinstance(root, ast.Attribute):
        root = root.value
    made = _made_by(root, function, index)
    return (made, method) if made in CLIENTS else None


def _made_by(root: ast.expr, function: Function, index: Index) -> str | None:
    """What made the object that an expression stands for, if that is one call."""
    if isinstance(root, ast.Call):
        return index.dotted(root.func, function)
    if not isinstance(root, ast.Name):
        return None
    if root.id in function.bound:
        values = [*_local_values(root.id, function)]
        if len(values) != 1 or root.id in function.parameters:
            return None
        value, scope = values[0], function
    elif root.id in function.scope.assigned:
        value, scope = function.scope.assigned[root.id], function
    else:
        return None
    return index.dotted(value.func, scope) if isinstance(value, ast.Call) else None


def _local_values(name: str, function: Function) -> Iterator[ast.expr]:
    for node in function.nodes:
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    if any(_is(part, name) for part in ast.walk(target)):
                        yield value
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                if _is(target, name):
                    yield value
            case ast.withitem(context_expr=value, optional_vars=ast.expr() as target):
                if any(_is(part, name) for part in ast.walk(target)):
                    yield value
            case (
                ast.For(target=target, iter=value)
                | ast.AsyncFor(target=target, iter=value)
                | ast.NamedExpr(target=target, value=value)
            ):
                if any(_is(part, name) for part in ast.walk(target)):
                    yield value


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def local_values(name: str, function: Function) -> list[ast.expr]:
    """Everything that a local name is set to."""
    return [*_local_values(name, function)]
