from django.db import models


class Row(models.Model):
    number = models.IntegerField()
