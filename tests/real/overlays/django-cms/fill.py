"""Make what is crawled: pages in two languages with plugins, and an administrator."""

from __future__ import annotations

import django

django.setup()

from cms.api import add_plugin, create_page, create_page_content
from django.contrib.auth import get_user_model
from django.contrib.sites.models import Site
from django.db import transaction

Site.objects.update(domain="localhost", name="localhost")
admin = get_user_model().objects.create_superuser("admin", "admin@example.com", "admin")


def fill(content: object, words: str) -> None:
    placeholder = content.get_placeholders().filter(slot="content").first()
    if placeholder is None:
        placeholder = content.placeholders.create(slot="content")
    add_plugin(placeholder, "TextPlugin", content.language, body=f"<p>{words}</p>")


home = create_page("Home", "page.html", "en", in_navigation=True, created_by=admin)
with transaction.atomic():
    home.set_as_homepage()
fill(home.get_content_obj("en"), "Welcome to <b>it</b>")
for number in range(4):
    page = create_page(
        f"Page {number}",
        "page.html",
        "en",
        in_navigation=True,
        parent=home if number % 2 else None,
        created_by=admin,
        login_required=number == 2,
    )
    fill(page.get_content_obj("en"), f"Words {number}, 日本語")
    german = create_page_content("de", f"Seite {number}", page, created_by=admin)
    fill(german, f"Worte {number}, äöü")
create_page("Elsewhere", "page.html", "en", redirect="/en/page-0/", created_by=admin)
