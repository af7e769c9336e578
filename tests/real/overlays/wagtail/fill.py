"""Make what is crawled: pages, an image, a document, users."""

from __future__ import annotations

import io

import django

django.setup()

from django.contrib.auth import get_user_model
from django.core.files.base import ContentFile
from home.models import ArticlePage, HomePage, QuestionField, QuestionsPage, Quote
from PIL import Image as Picture
from wagtail.contrib.redirects.models import Redirect
from wagtail.documents import get_document_model
from wagtail.images import get_image_model

admin = get_user_model().objects.create_superuser("admin", "admin@example.com", "admin")

buffer = io.BytesIO()
Picture.new("RGB", (320, 200), "teal").save(buffer, "PNG")
image = get_image_model().objects.create(
    title="Teal", file=ContentFile(buffer.getvalue(), "teal.png")
)
get_document_model().objects.create(
    title="Notes", file=ContentFile(b"Some notes.\n" * 9000, "notes.txt")
)

home = HomePage.objects.get()
for number in range(5):
    page = ArticlePage(
        title=f"Article {number} <&> é",
        slug=f"article-{number}",
        intro=f"<p>About <b>{number}</b>, and <a linktype='page' id='{home.pk}'>home</a></p>",
        body=[
            ("heading", f"Part {number}"),
            ("text", "<p>Words, 日本語, and more of them.</p>"),
            ("image", image),
        ],
    )
    home.add_child(instance=page)
    page.save_revision(user=admin).publish()

questions = QuestionsPage(title="Questions", slug="questions")
home.add_child(instance=questions)
QuestionField.objects.create(
    page=questions, label="Your name", field_type="singleline", sort_order=1
)
QuestionField.objects.create(
    page=questions, label="Mail", field_type="email", sort_order=2
)
questions.save_revision(user=admin).publish()

draft = ArticlePage(title="Draft", slug="draft", live=False)
home.add_child(instance=draft)
draft.save_revision(user=admin)

Quote.objects.create(text="To be or not to be")
Redirect.objects.create(old_path="/old", redirect_link="/article-1/", is_permanent=True)
