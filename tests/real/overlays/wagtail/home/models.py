from __future__ import annotations

from django.db import models
from django.http import HttpResponse
from modelcluster.fields import ParentalKey
from wagtail import blocks
from wagtail.admin.panels import FieldPanel, InlinePanel
from wagtail.contrib.forms.models import AbstractEmailForm, AbstractFormField
from wagtail.contrib.routable_page.models import RoutablePageMixin, path
from wagtail.fields import RichTextField, StreamField
from wagtail.images.blocks import ImageBlock
from wagtail.models import Page
from wagtail.snippets.models import register_snippet


class HomePage(Page):
    pass


class ArticlePage(RoutablePageMixin, Page):
    intro = RichTextField(blank=True)
    body = StreamField(
        [
            ("heading", blocks.CharBlock()),
            ("text", blocks.RichTextBlock()),
            ("image", ImageBlock()),
        ],
        blank=True,
    )
    content_panels = [*Page.content_panels, FieldPanel("intro"), FieldPanel("body")]

    @path("plain/")
    def plain(self, request):
        return HttpResponse(self.title, content_type="text/plain")


class QuestionField(AbstractFormField):
    page = ParentalKey(
        "QuestionsPage", on_delete=models.CASCADE, related_name="form_fields"
    )


class QuestionsPage(AbstractEmailForm):
    content_panels = [
        *AbstractEmailForm.content_panels,
        InlinePanel("form_fields"),
    ]


@register_snippet
class Quote(models.Model):
    text = models.CharField(max_length=200)
    panels = [FieldPanel("text")]

    def __str__(self) -> str:
        return self.text
