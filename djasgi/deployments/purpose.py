"""What a deployment file is, and whether it is for development."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from djasgi.deployments.yaml import Node

DEVELOPMENT = {
    *("dev", "devel", "develop", "development", "local", "override", "test", "tests"),
    *("testing", "ci", "debug", "example", "examples", "e2e", "devcontainer", "docs"),
    *("sample", "samples", "demo", "demos", "template", "templates", "playground"),
}
PRODUCTION = {"prod", "production", "live", "deploy", "release", "staging"}


def kind_of(name: str) -> str | None:
    """What kind of deployment file has this name."""
    low = name.lower()
    if low == "procfile" or low.startswith("procfile."):
        return "Procfile"
    if low.endswith((".dockerignore", ".md", ".txt", ".j2", ".sh", ".py")):
        return None
    if re.fullmatch(r"(dockerfile|containerfile)([.-].*)?|.*\.dockerfile", low):
        return "Dockerfile"
    if re.fullmatch(r"(docker-)?compose.*\.ya?ml|.*\.compose\.ya?ml", low):
        return "compose"
    if low.endswith(".service"):
        return "systemd"
    if re.fullmatch(r"fly(\..+)?\.toml", low):
        return "fly.toml"
    if re.fullmatch(r"render\.ya?ml", low):
        return "render.yaml"
    return None


def words_of(path: Path) -> set[str]:
    """The words of a relative path, by which development is recognised."""
    return {
        word for part in path.parts for word in re.split(r"[^a-z0-9]+", part.lower())
    }


def is_development(name: str, service: Node, environ: Mapping[str, str]) -> bool:
    """Whether a service says of itself that it is for development."""
    said = [name, service.scalar("image"), service.scalar("build", "target")]
    said += [service.scalar("build", "dockerfile")]
    said += [node.text for _, node in service.pairs("build", "args")]
    said += [environ.get(key) for key in ("DJANGO_ENV", "DJANGO_CONFIGURATION")]
    said += [environ.get("DJANGO_SETTINGS_MODULE", "")]
    if any(words_of(Path(text)) & DEVELOPMENT for text in said if text):
        return True
    debug = [value for key, value in environ.items() if key.endswith("DEBUG")]
    return service.get("develop") is not None or any(
        value.lower() in ("1", "true", "yes", "on") for value in debug
    )
