"""Make what is crawled: users and groups."""

from __future__ import annotations

import django

django.setup()

from allauth.account.models import EmailAddress
from django.contrib.auth.models import Group, User

for name in ("admin", "reader"):
    make = (
        User.objects.create_superuser if name == "admin" else User.objects.create_user
    )
    user = make(name, f"{name}@example.com", "admin")
    EmailAddress.objects.create(
        user=user, email=user.email, verified=True, primary=True
    )
for name in ("Readers", "Writers"):
    user.groups.add(Group.objects.create(name=name))
