"""Deployment files: what starts a server, how, and whose it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from djasgi.deployments import commands, yaml
from djasgi.deployments.launch import Launch
from djasgi.deployments.launches import find
from djasgi.deployments.purpose import kind_of

UVICORN = "uvicorn config.asgi:application"


@pytest.mark.parametrize(
    ("text", "name", "target"),
    [
        (UVICORN, "uvicorn", "config.asgi:application"),
        (f"exec {UVICORN} --workers 2", "uvicorn", "config.asgi:application"),
        (f"env A=b C=d {UVICORN}", "uvicorn", "config.asgi:application"),
        (f"A=b exec poetry run {UVICORN}", "uvicorn", "config.asgi:application"),
        (
            f"uv run --no-dev --env-file x {UVICORN}",
            "uvicorn",
            "config.asgi:application",
        ),
        (f"/venv/bin/{UVICORN}", "uvicorn", "config.asgi:application"),
        (f"python3.12 -u -m {UVICORN}", "uvicorn", "config.asgi:application"),
        (f"gosu app {UVICORN}", "uvicorn", "config.asgi:application"),
        (f"newrelic-admin run-program {UVICORN}", "uvicorn", "config.asgi:application"),
        (f"tini -- {UVICORN}", "uvicorn", "config.asgi:application"),
        ("uvicorn --host 0.0.0.0 --reload a.asgi:b", "uvicorn", "a.asgi:b"),
        ("uvicorn --port=80 a.asgi:b", "uvicorn", "a.asgi:b"),
        ("gunicorn -w4 -k asgi a.asgi", "gunicorn", "a.asgi"),
        ("gunicorn --preload a.asgi", "gunicorn", "a.asgi"),
        ("daphne -b 0.0.0.0 -p 80 a.asgi:b", "daphne", "a.asgi:b"),
        ("granian --interface asgi a.asgi:b", "granian", "a.asgi:b"),
        ("python manage.py runserver 0.0.0.0:80", "runserver", "0.0.0.0:80"),
        ("djasgi serve --env production", "djasgi", None),
    ],
)
def test_servers(text: str, name: str, target: str | None) -> None:
    (command,) = commands.split(text)
    found = commands.server(command.words)
    assert found is not None
    assert (found.name, found.target) == (name, target)


@pytest.mark.parametrize(
    "text",
    [
        "python manage.py migrate",
        "djasgi manage migrate",
        "celery -A config worker",
        "pip install uvicorn",
        "echo uvicorn config.asgi",
        "",
    ],
)
def test_not_servers(text: str) -> None:
    assert not any(commands.server(command.words) for command in commands.split(text))


def test_option_values_in_every_spelling() -> None:
    (command,) = commands.split("gunicorn -w 4 --bind=a -b b -kasgi --timeout 5 x")
    server = commands.server(command.words)
    assert server is not None
    assert server.number("-w", "--workers") == 4
    assert server.values("-b", "--bind") == ["a", "b"]
    assert server.value("-k", "--worker-class") == "asgi"
    assert server.number("--timeout") == 5
    assert server.number("--nothing") is None
    assert server.target == "x"


def test_redirections_are_no_arguments() -> None:
    (command,) = commands.split(f"{UVICORN} --workers 2 > log.txt 2>&1")
    server = commands.server(command.words)
    assert server is not None
    assert server.arguments == ("config.asgi:application", "--workers", "2")


def launches(root: Path, **files: str) -> list[Launch]:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return list(find(root).launches)


@pytest.mark.parametrize(
    "name",
    [
        "Dockerfile.dev",
        "Dockerfile_dot_local",
        "docker__dev__Dockerfile",
        "docker-compose.override.yml",
        "compose.test.yaml",
        "Procfile.dev",
        "tests__Dockerfile",
        "examples__Procfile",
    ],
)
def test_files_for_development_are_left_out(tmp_path: Path, name: str) -> None:
    text = f"web: {UVICORN}" if "Procfile" in name else f"CMD {UVICORN}"
    if "compose" in name:
        text = f"services:\n  web:\n    command: {UVICORN}\n"
    assert launches(tmp_path, **{name: text}) == []


def test_the_plain_file_beside_one_for_production_is_for_development(
    tmp_path: Path,
) -> None:
    found = launches(
        tmp_path,
        **{"Dockerfile": f"CMD {UVICORN}", "Dockerfile.prod": "CMD djasgi serve"},
    )
    assert [launch.server.name for launch in found] == ["djasgi"]


def test_a_service_that_mounts_the_source_is_for_development(tmp_path: Path) -> None:
    text = (
        "services:\n"
        f"  web: {{command: {UVICORN}, volumes: ['.:/app']}}\n"
        f"  live: {{command: {UVICORN}, volumes: ['media:/app/media']}}\n"
    )
    (found,) = launches(tmp_path, compose_dot_yaml=text)
    assert found.facts["service"] == "live"


def test_dockerfile_uses_the_last_stage(tmp_path: Path) -> None:
    text = f"FROM a AS build\nCMD {UVICORN}\nFROM b\nENV A=1\nCMD djasgi serve\n"
    (found,) = launches(tmp_path, Dockerfile=text)
    assert (found.server.name, found.line, found.variables) == ("djasgi", 5, {"A": "1"})


def test_entrypoint_and_command_make_one(tmp_path: Path) -> None:
    text = 'FROM a\nENTRYPOINT ["uvicorn"]\nCMD ["a.asgi:b", "--workers", "3"]\n'
    (found,) = launches(tmp_path, Dockerfile=text)
    assert (found.server.target, found.workers) == ("a.asgi:b", 3)


def test_scripts_are_followed_through_copy(tmp_path: Path) -> None:
    (found,) = launches(
        tmp_path,
        Dockerfile='FROM a\nCOPY ops/go.sh /start\nENTRYPOINT ["/start"]\n',
        ops__go_dot_sh="#!/bin/sh\nexport A=1\nset -e\n"
        'if [ -n "$X" ]; then\n  exec \\\n    uvicorn a.asgi:b\nfi\n',
    )
    assert found.file == tmp_path / "ops/go.sh"
    assert (found.line, found.variables, found.shell) == (5, {"A": "1"}, False)
    assert found.through == ((tmp_path / "Dockerfile", 3),)


def test_a_script_that_calls_itself_ends(tmp_path: Path) -> None:
    assert not launches(
        tmp_path,
        Dockerfile='FROM a\nCMD ["./a.sh"]\n',
        a_dot_sh="#!/bin/sh\n./b.sh\n",
        b_dot_sh="#!/bin/sh\n./a.sh\n",
    )


def test_units(tmp_path: Path) -> None:
    text = (
        "[Service]\nEnvironment=A=1 'B=2 3'\nTimeoutStopSec=5\n"
        f"ExecStart=/venv/bin/{UVICORN} \\\n  --workers 2\n"
    )
    (found,) = launches(tmp_path, **{"shop.service": text})
    assert found.workers == 2
    assert found.variables == {"A": "1", "B": "2 3"}
    assert found.facts["TimeoutStopSec"] == "5"


def test_render(tmp_path: Path) -> None:
    text = (
        "services:\n  - type: web\n    startCommand: djasgi serve\n"
        "    healthCheckPath: /up\n    envVars:\n      - key: A\n        value: 1\n"
    )
    (found,) = launches(tmp_path, render_dot_yaml=text)
    assert (found.facts["health"], found.variables) == ("/up", {"A": "1"})


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("Procfile", b"\xff\xfe\x00", "not text"),
        ("Dockerfile", b"#" * 300_000, "too large"),
        ("compose.yaml", b"a: [", "not understood"),
        ("fly.toml", b"a = ", "not understood"),
        ("x.service", b"ExecStart='", "not understood"),
    ],
)
def test_broken_files_are_named(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(data)
    ((path, said),) = find(tmp_path).skipped
    assert path == tmp_path / name
    assert said.startswith(reason)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Procfile", "Procfile"),
        ("Dockerfile-prod", "Dockerfile"),
        ("web.Dockerfile", "Dockerfile"),
        ("Containerfile", "Dockerfile"),
        ("docker-compose.prod.yml", "compose"),
        ("fly.staging.toml", "fly.toml"),
        ("Dockerfile.md", None),
        ("fly.py", None),
        ("composer.json", None),
    ],
)
def test_kinds_by_name(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind


FILES = st.sampled_from(
    ["Procfile", "Dockerfile", "compose.yaml", "x.service", "fly.toml", "render.yaml"]
)
PIECES = st.sampled_from(
    ["web:", " uvicorn", " a.asgi:b", "\n", "\\", "'", '"', "&&", "[", "{", "- ", ": ",
     "services:", "  ", "CMD", "ENV A=1", "$(x)", ">", "|", "#", "<<: *a", "&a", "\t",
     "ExecStart=", "sh -c ", "./x.sh", "command:", "é"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(name=FILES, parts=st.lists(PIECES, max_size=25))
def test_no_file_makes_it_crash(
    tmp_path_factory: pytest.TempPathFactory, name: str, parts: list[str]
) -> None:
    root = tmp_path_factory.mktemp("any")
    (root / name).write_text("".join(parts))
    (root / "x.sh").write_text("".join(reversed(parts)))
    find(root)


def test_yaml_of_compose_files() -> None:
    document = yaml.parse(
        "x-app: &app\n  build: .\n  environment:\n    - A=b # note\n    - C\n"
        'services:\n  web:\n    <<: *app\n    image: "x:1"\n    command: >\n'
        "      sh -c 'a &&\n      b'\n    ports:\n    - 80:80\n"
        "    deploy: {replicas: 2, list: [a, 'b, c']}\n  db:\n    image: postgres\n"
    )
    web = document.get("services", "web")
    assert web is not None
    assert web.scalar("command") == "sh -c 'a && b'"
    assert web.scalar("image") == "x:1"
    assert {k: v.text for k, v in web.pairs("environment")} == {"A": "b", "C": ""}
    assert [item.text for item in web.each("ports")] == ["80:80"]
    assert web.scalar("deploy", "replicas") == "2"
    assert [item.text for item in web.each("deploy", "list")] == ["a", "b, c"]
    assert document.scalar("services", "db", "image") == "postgres"
    command = web.get("command")
    assert command is not None
    assert command.line == 11


@pytest.mark.parametrize(
    "text",
    ["a: *b", "a: [1", "a: 'x", "\ta: 1", "a: 1\n   b: 2", "[" * 99],
)
def test_yaml_that_is_not_understood(text: str) -> None:
    with pytest.raises(ValueError, match=r"line|deep|unexpected|nested"):
        yaml.parse(text)


@pytest.mark.parametrize(
    "service",
    [
        "web-dev: {command: %s}",
        "web: {command: %s, image: 'shop:dev'}",
        "web: {command: %s, build: {context: ., target: development_build}}",
        "web: {command: %s, build: {context: ., args: {DJANGO_ENV: development}}}",
        "web: {command: %s, environment: {DJANGO_CONFIGURATION: Development}}",
        "web: {command: %s, environment: ['DEBUG=1']}",
        "web: {command: %s, volumes: ['./shop:/code/shop']}",
        "web: {command: %s, develop: {watch: []}}",
    ],
)
def test_services_for_development_are_left_out(tmp_path: Path, service: str) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/models.py").touch()
    text = f"services:\n  {service % UVICORN}\n  live: {{command: djasgi serve}}\n"
    (found,) = launches(tmp_path, compose_dot_yaml=text)
    assert found.facts["service"] == "live"


def test_a_file_for_production_anywhere_makes_the_plain_one_development(
    tmp_path: Path,
) -> None:
    (tmp_path / ".git").mkdir()
    text = "services:\n  web: {command: %s}\n"
    files = {
        "docker-compose.yml": text % UVICORN,
        "docker__docker-compose.prod.yml": text % "djasgi serve",
    }
    assert [x.server.name for x in launches(tmp_path, **files)] == ["djasgi"]


def test_a_last_stage_for_development_is_left_out(tmp_path: Path) -> None:
    text = f"FROM a AS base\nFROM base AS backend-development\nCMD {UVICORN}\n"
    assert launches(tmp_path, Dockerfile=text) == []
