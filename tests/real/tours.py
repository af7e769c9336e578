"""The pages of each project that are asked for, and what is done there."""

from __future__ import annotations

from tests.real.crawl import Both

PASSWORD = "admin"

FOREVER = r"logout|sign_?out|/static/|/media/|/unlock/|/lock/"
"""Links that the spider leaves: they end the session, or are files of the admin."""


def wagtail(both: Both) -> None:
    """The public site, its form and files; the admin: edit, publish, upload, log out."""
    for path in ("/", "/article-1/", "/questions/", "/search/?query=words"):
        both.get(path)
        both.head(path)
    both.get("/article-2/plain/")
    both.get("/article-1", 301)
    both.get("/old/", 301)
    both.get("/draft/", 404)
    both.get("/nowhere/", 404)
    both.head("/nowhere/", 404)
    both.get("/admin/", 302)
    both.get("/admin/pages/4/edit/", 302)
    both.get("/article-1/", Accept_Language="de")
    both.get("/", 400, Host="elsewhere example")
    both.conditional("/sitemap.xml")
    both.conditional("/documents/1/notes.txt")
    both.conditional("/static/css/mysite.css")
    both.conditional("/media/original_images/teal.png")
    both.get("/media/original_images/teal.png", Range="bytes=10-19")
    both.get("/media/nothing.png", 404)
    both.get("/api/pages/?format=json&type=home.ArticlePage&fields=*")
    both.get("/api/pages/4/")
    both.get("/api/pages/999/", 404)
    both.get("/api/pages/?limit=many", 400)
    both.post("/api/pages/", {"title": "no"}, status=405, token=False)
    both.post("/questions/", {"your_name": "Ada", "mail": "ada@x.org"}, status=200)
    both.post("/questions/", {"your_name": "Ada", "mail": "no address"}, status=200)
    both.post("/questions/", {"your_name": "Ada"}, status=403, token=False)
    both.get("/questions/", 403, method="PATCH")
    both.get("/raises/", 500)

    both.post("/admin/login/", {"username": "admin", "password": "wrong"}, status=200)
    both.post("/admin/login/", {"username": "admin", "password": PASSWORD})
    both.spider("/admin/", "/", most=200, without=FOREVER)
    edit = "/admin/pages/4/edit/"
    body = {"+body-count": "0"}  # a script adds it in a browser
    both.post(edit, {"title": "Edited <once>", **body})
    both.post(edit, {"title": "Published", "+action-publish": "action-publish", **body})
    both.get("/article-0/")
    both.post(edit, {"title": "", **body}, status=200)
    both.post(
        "/admin/images/add/",
        {"title": "Sent"},
        files={"file": ("sent.gif", GIF, "image/gif")},
    )
    both.post(
        "/admin/documents/add/",
        {"title": "Sent"},
        files={"file": ("sent.txt", b"sent\n" * 40_000, "text/plain")},
    )
    both.post("/admin/snippets/home/quote/add/", {"text": "Brevity"})
    both.post("/admin/snippets/home/quote/delete/1/")
    both.post("/admin/pages/5/delete/", {})
    both.get("/article-1/", 404)
    both.post("/admin/pages/6/unpublish/", {})
    both.get("/article-2/", 404)
    both.get("/admin/reports/site-history/")
    both.get("/admin/reports/site-history/?export=csv")
    both.get("/django-admin/", 200)
    both.post("/django-admin/auth/group/add/", {"name": "Readers"})
    both.post("/admin/logout/", form="/admin/account/")
    both.get("/admin/", 302)


GIF = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00"
    b"\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)
"""One pixel."""


def cms(both: Both) -> None:
    """Two languages, the toolbar, structure and edit views, a plugin, the admin."""
    for path in ("/en/", "/en/page-0/", "/en/page-3/", "/de/seite-0/"):
        both.get(path)
        both.head(path)
    both.get("/", 302)
    both.get("/en/page-0", 301)
    both.get("/en/elsewhere/", 302)
    both.get("/en/page-2/", 302)
    both.get("/en/nowhere/", 404)
    both.get("/fr/", 302)
    both.get("/", 302, Accept_Language="de")
    both.conditional("/static/admin/css/base.css")
    both.get("/en/admin/", 302)
    both.spider("/en/", most=40, without=FOREVER)

    login = "/en/admin/login/?next=/en/admin/"
    both.post(login, {"username": "admin", "password": "wrong"}, status=200)
    both.post(login, {"username": "admin", "password": PASSWORD})
    both.spider("/en/admin/", "/en/", most=150, without=FOREVER)
    both.get("/en/page-2/")
    both.get("/en/page-0/?toolbar_off")
    both.get("/en/page-0/?toolbar_on")
    both.post("/en/admin/auth/group/add/", {"name": "Readers"})
    both.post("/en/admin/auth/group/add/", {"name": "Readers"}, status=200)
    both.post("/en/admin/auth/group/add/", {"name": "More"}, token=False, status=403)
    both.post("/en/admin/cms/pagecontent/add/", {"title": "New", "slug": "new"})
    both.get("/en/new/")
    both.post("/en/admin/logout/", form="/en/admin/password_change/", status=200)
    both.get("/en/admin/", 302)


def allauth(both: Both) -> None:
    """Accounts, a signup, the JSON of the headless views, a REST API to browse."""
    for path in ("/accounts/login/", "/accounts/signup/", "/accounts/password/reset/"):
        both.get(path)
        both.head(path)
    both.get("/accounts/email/", 302)
    both.get("/accounts/login", 301)
    both.get("/nowhere/", 404)
    both.get("/_allauth/browser/v1/config")
    both.get("/_allauth/browser/v1/auth/session", 401)
    both.get("/_allauth/app/v1/config")
    both.post(
        "/_allauth/browser/v1/auth/login", {"username": "x"}, token=False, status=403
    )
    for accepted in ("application/json", "text/html"):
        both.get("/api/", Accept=accepted)
        both.get("/api/users/", Accept=accepted)
        both.get("/api/users/999/", 404, Accept=accepted)
    both.conditional("/api/groups/?format=json")
    both.conditional("/static/rest_framework/css/default.css")
    both.get("/api/groups/", 405, method="PATCH")
    both.get("/api/groups/", 200, method="OPTIONS")
    both.get("/api/groups/", 406, Accept="image/png")
    both.post("/api/groups/", {"name": "Guests"}, token=False, status=201)
    both.post("/api/groups/", {"name": ""}, token=False, status=400)
    both.get("/api/groups/3/", 204, method="DELETE")
    both.post(
        "/accounts/signup/",
        {"username": "newcomer", "password1": "s0-long-it-is", "password2": "other"},
        status=200,
    )
    both.post(
        "/accounts/signup/",
        {
            "username": "newcomer",
            "email": "n@example.com",
            "password1": "s0-long-it-is",
            "password2": "s0-long-it-is",
        },
    )
    both.forget()
    both.post("/accounts/password/reset/", {"email": "reader@example.com"})
    both.post("/accounts/login/", {"login": "admin", "password": "wrong"}, status=200)
    both.post("/accounts/login/", {"login": "admin", "password": PASSWORD})
    both.spider("/accounts/email/", "/admin/", "/api/", most=150, without=FOREVER)
    both.post("/accounts/password/change/", {"oldpassword": "wrong"}, status=200)
    both.post("/accounts/email/", {"email": "another@example.com", "+action_add": ""})
    both.post("/admin/auth/group/add/", {"name": "Admins"})
    both.post("/accounts/logout/")
    both.get("/accounts/email/", 302)
