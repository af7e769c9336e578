"""The real projects: what is installed, how each is made, and how its tests run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.real import tours
from tests.real.crawl import Both
from tests.real.normal import Rule, in_order


@dataclass(frozen=True)
class Suite:
    """The tests in a source distribution."""

    runner: str
    """`django` or `pytest`."""

    arguments: tuple[str, ...]
    settings: str


@dataclass(frozen=True)
class Project:
    """A package from the index, made into a project that is crawled, and tested."""

    package: str
    requirements: tuple[str, ...]
    """The package with its extras, and what its tests need."""

    suite: Suite | None = None
    start: tuple[str, ...] = ()
    """The command, of the environment's `bin`, that begins the project `mysite`."""

    settings: str = ""
    tour: Callable[[Both], None] | None = None
    rules: list[Rule] = field(default_factory=list)
    """What may differ in bodies, besides `normal.BODY`, with its reason."""


PROJECTS = (
    Project(
        package="wagtail",
        requirements=(
            "wagtail", "Jinja2<3.2", "boto3", "freezegun", "azure-identity<2",
            "azure-mgmt-cdn<15", "azure-mgmt-frontdoor<2",
            "azure-mgmt-subscription<4", "django-pattern-library", "responses<1",
            "factory-boy", "polib<2", "tblib<4",
        ),
        suite=Suite("django", (), "wagtail.test.settings"),
        start=("wagtail", "start", "mysite"),
        settings="mysite.settings.crawled",
        tour=tours.wagtail,
        rules=[
            # The mask of the CSRF token again, for the scripts of the admin.
            (r'("CSRF_TOKEN": ")\w{64}(?=")', r"\1TOKEN"),
            # How long ago, less than a minute.
            (r"\bJust now\b", "AGE ago"),
            # The names of blocks of text, drawn when they are shown.
            (r"(\\*&quot;key\\*&quot;: \\*&quot;)[0-9a-z]{5}(?=\\*&quot;)", r"\1KEY"),
            # The same, drawn when a page is saved.
            (r'(<p data-block-key=")[0-9a-z]{5}(?=">)', r"\1KEY"),
            # From a set of classes: whose name it is, and the order of names below, is
            # that of their addresses in memory, another in each process.
            (r"(\d+ )(?:model|page)(?= log entries)", r"\1SOME"),
            (r'(?<="modelNames": \[)[^\]]+(?=\])', in_order),
        ],
    ),
    Project(
        package="django-cms",
        requirements=(
            "django-cms", "djangocms-text", "djangocms-admin-style",
            "django-formtools", "iptools", "mock", "pyenchant", "dj-database-url",
            "Pillow", "ruff", "unittest-xml-reporting", "setuptools", "tblib",
        ),
        suite=Suite("django", ("cms", "menus"), "cms.tests.settings"),
        start=("django-admin", "startproject", "mysite"),
        settings="mysite.crawled",
        tour=tours.cms,
        rules=[
            # The mask of the CSRF token again, for the scripts of the toolbar.
            (r'("csrf": ")\w{64}(?=")', r"\1TOKEN"),
            (r"(&quot;csrfmiddlewaretoken&quot;: &quot;)\w{64}(?=&)", r"\1TOKEN"),
            # Signed with the key of the session.
            (r'("action_token": "\d+:)[\w-]{43}(?=")', r"\1TOKEN"),
        ],
    ),
    Project(
        package="django-allauth",
        requirements=(
            "django-allauth[headless,socialaccount,mfa,idp-oidc,openid,steam,saml]",
            "pytest", "pytest-django", "pytest-asyncio", "djangorestframework",
            "django-ninja", "pyyaml", "Pillow", "psycopg[binary]",
        ),
        suite=Suite("pytest", (), "tests.projects.regular.settings"),
        start=("django-admin", "startproject", "mysite"),
        settings="mysite.crawled",
        tour=tours.allauth,
        rules=[
            # The mask of the CSRF token again, for the scripts of REST framework.
            (r'("csrfToken": ")\w{64}(?=")', r"\1TOKEN"),
            # How long ago a session was used, less than a minute (naturaltime).
            (r"\b(?:now|(?:a second|AGE) ago)(?=</span>)", "AGE"),
        ],
    ),
)  # fmt: skip
