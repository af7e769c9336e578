"""What was found, for people, for machines, for GitHub; whatever names it has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from djasgi.checking import Report
from djasgi.checks.base import Finding, Level, Place
from djasgi.errors import ProjectError
from djasgi.findings import SCHEMA, as_json, github, summary, text
from djasgi.plan import LaunchPlan, resolve
from tests.checks.projects import write


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> LaunchPlan:
    return resolve("check", {}, {}, write(tmp_path_factory.mktemp("shop")))


def report(plan: LaunchPlan, *findings: Finding, **values: Any) -> Report:
    return Report(
        plan,
        deploy=True,
        findings=list(findings),
        checks=7,
        repository=plan.path,
        **values,
    )


def finding(plan: LaunchPlan, **values: Any) -> Finding:
    known: dict[str, Any] = {
        "text": "Each worker has a layer of its own.",
        "mend": "Use channels_redis, or one worker.",
        "id": "djasgi.E011",
        "title": "Messages are lost between workers",
        "level": Level.ERROR,
        "links": ("https://channels.readthedocs.io/",),
        "place": Place(plan.path / "config/settings.py", 3, 'SECRET_KEY = "hidden"'),
    }
    return Finding(**(known | values))


TEXT = """\
config.settings on uvicorn, 1 worker

  error  djasgi.E011  Messages are lost between workers
  config/settings.py:3
      SECRET_KEY = "••••••••"
  Each worker has a layer of its own.
  Use channels_redis, or one worker.

1 error in 7 checks.  More: djasgi check --explain E011"""


def test_text(plan: LaunchPlan) -> None:
    assert text(report(plan, finding(plan)), color=False) == TEXT


def test_a_clean_project_gets_one_line(plan: LaunchPlan) -> None:
    line = "Nothing found in 7 checks: config.settings on uvicorn, 1 worker."
    assert text(report(plan), color=False) == line


def test_the_trail_of_calls_is_shown(plan: LaunchPlan) -> None:
    step = Place(plan.path / "shop/services.py", 9, "time.sleep(1)", "charge")
    shown = text(report(plan, finding(plan, trail=(step,))), color=False)
    assert "  → shop/services.py:9  in charge\n      time.sleep(1)" in shown


def test_colour_is_for_the_level_only(plan: LaunchPlan) -> None:
    colored = text(report(plan, finding(plan)), color=True)
    assert "\x1b[31merror\x1b[0m" in colored
    assert colored.count("\x1b") == 2


def test_summary_counts_by_level_and_silenced(plan: LaunchPlan) -> None:
    many = report(
        plan,
        finding(plan, id="security.W004", level=Level.WARNING),
        finding(plan, id="security.W008", level=Level.WARNING),
        silenced=[finding(plan)],
    )
    assert summary(many) == "2 warnings in 7 checks, 1 silenced."


GITHUB = (
    "::error file=config/settings.py,line=3,title=djasgi.E011 Messages are lost between "
    "workers::Each worker has a layer of its own.%0AUse channels_redis, or one worker."
)


def test_github(plan: LaunchPlan) -> None:
    lines = github(report(plan, finding(plan))).splitlines()
    assert lines[0] == GITHUB


def test_github_names_the_error_of_the_project(plan: LaunchPlan) -> None:
    error = ProjectError("It does not load: 100%", hint="Look.")
    lines = github(report(plan, error=error)).splitlines()
    assert lines[0] == "::error title=djasgi check::It does not load: 100%25 Look."


HOSTILE = st.text(alphabet=st.characters(codec="utf-8"), max_size=30) | st.sampled_from(
    ["::error::x", "a,line=1", "%0A::warning ::", "\r\n::stop-commands::x", "\x1b[31m"]
)


@given(title=HOSTILE, body=HOSTILE, name=HOSTILE, source=HOSTILE)
def test_nothing_escapes_an_annotation(
    plan: LaunchPlan, title: str, body: str, name: str, source: str
) -> None:
    name = name.replace("\0", "").replace("/", "") or "x"
    place = Place(plan.path / name, 3, source)
    shown = github(report(plan, finding(plan, title=title, text=body, place=place)))
    lines = shown.split("\n")
    assert len(lines) == 2
    assert lines[0].isprintable()
    matched = re.fullmatch(
        r"::error file=([^,:]*),line=3,title=([^,:]*)::(.*)", lines[0]
    )
    assert matched, lines[0]


@given(title=HOSTILE, body=HOSTILE, source=HOSTILE)
def test_nothing_steers_a_terminal(
    plan: LaunchPlan, title: str, body: str, source: str
) -> None:
    place = Place(plan.path / "x.py", 3, source)
    shown = text(
        report(plan, finding(plan, title=title, text=body, place=place)), color=False
    )
    assert all(line.isprintable() for line in shown.split("\n"))


def test_json_keeps_to_its_schema(plan: LaunchPlan) -> None:
    place = Place(plan.path / "shop/\udcff.py", 1, "x = '\udcff'")
    full = report(
        plan,
        finding(plan, trail=(place,)),
        finding(plan, place=None),
        silenced=[finding(plan)],
        stale=("djasgi.E012",),
        skipped=[("x.py", "too large")],
        error=ProjectError("It does not load.", hint="Look."),
    )
    conforms(json.loads(as_json(full)), SCHEMA)
    conforms(json.loads(as_json(report(plan))), SCHEMA)


def test_the_schema_can_fail(plan: LaunchPlan) -> None:
    value = json.loads(as_json(report(plan, finding(plan))))
    value["findings"][0]["level"] = "terrible"
    with pytest.raises(AssertionError):
        conforms(value, SCHEMA)


TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "null": type(None),
}


def conforms(value: Any, schema: dict[str, Any]) -> None:
    """Assert what the parts of JSON Schema say that `SCHEMA` uses."""
    if "$ref" in schema:
        return conforms(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]])
    if "const" in schema:
        assert value == schema["const"]
        return None
    if "enum" in schema:
        assert value in schema["enum"]
        return None
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    assert isinstance(value, tuple(TYPES[kind] for kind in kinds)), (value, kinds)
    if isinstance(value, dict):
        assert set(schema["required"]) <= set(value) <= set(schema["properties"])
        for name, inner in value.items():
            conforms(inner, schema["properties"][name])
    if isinstance(value, list):
        for item in value:
            conforms(item, schema["items"])
    return None


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ('API_TOKEN = "abc"', "abc"),
        ('"PASSWORD": "abc",', "abc"),
        ('DATABASE_URL = "postgres://u:abc@host/db"', "abc"),
        ("secret_key='abc'", "abc"),
    ],
)
def test_secrets_in_source_lines_are_masked(
    plan: LaunchPlan, source: str, shown: str
) -> None:
    place = Place(Path("x.py"), 1, source)
    for output in (
        text(report(plan, finding(plan, place=place)), color=False),
        as_json(report(plan, finding(plan, place=place))),
    ):
        assert shown not in output
        assert "••••" in output


def test_a_github_path_is_relative_to_the_repository(plan: LaunchPlan) -> None:
    inner = report(plan, finding(plan))
    inner.repository = plan.path.parent
    assert f"file={plan.path.name}/config/settings.py" in github(inner)


def test_a_long_title_is_wrapped(plan: LaunchPlan) -> None:
    shown = text(report(plan, finding(plan, title="word " * 40)), color=False)
    assert max(map(len, shown.splitlines())) <= 80
