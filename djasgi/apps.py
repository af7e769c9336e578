"""djasgi in INSTALLED_APPS: its checks of settings as system checks of Django."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from django.apps import AppConfig
from django.core import checks as django_checks

from djasgi.checks.base import Check, Finding, Needs, all_checks, findings
from djasgi.checks.context import Context

TAG = "asgi"


class DjasgiConfig(AppConfig):
    """Registers what needs only settings, with the tag `asgi`."""

    name = "djasgi"
    verbose_name = "djasgi"

    def ready(self) -> None:
        for check in all_checks().values():
            if check.needs is Needs.SETTINGS:
                django_checks.register(
                    partial(_messages, check), TAG, deploy=check.deploy
                )


def _messages(check: Check, **kwargs: Any) -> Iterable[django_checks.CheckMessage]:
    """What a check finds, as messages of Django's."""
    from django.conf import settings

    module = getattr(settings._wrapped, "SETTINGS_MODULE", None)  # noqa: SLF001
    context = Context(deploy=check.deploy, settings=settings, settings_module=module)
    return [_message(finding, context) for finding in findings(check, context)]


def _message(finding: Finding, context: Context) -> django_checks.CheckMessage:
    place = finding.place
    where = ""
    if place is not None:
        line = f":{place.line}" if place.line else ""
        where = f" ({context.shown(place.file)}{line})"
    return django_checks.CheckMessage(
        int(finding.level),
        f"{finding.title}. {finding.text}{where}",
        hint=finding.mend,
        id=finding.id,
    )
