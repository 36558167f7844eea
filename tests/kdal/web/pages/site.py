"""A browser without a screen: what signs in, follows forms, and reads pages."""

from __future__ import annotations

import re
from html.parser import HTMLParser

USER, PASSWORD = "owner", "pass:wörd"


class Page(HTMLParser):
    """A page's text, forms and tags, as a browser has them."""

    def __init__(self, html):
        super().__init__()
        self.html, self.tags, self._text = html, [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self._text.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self._text).split())

    def of(self, tag, **attributes):
        return [a for name, a in self.tags if name == tag and attributes.items() <= a.items()]


def form_token(html):
    return re.search(r'name="form_token" value="([^"]+)"', html)[1]


class Site:
    """The test client of a server, signed in once `sign_in` was called."""

    def __init__(self, client):
        self.client = client

    def sign_in(self, user=USER, password=PASSWORD, back=None):
        path = "/projects/sign-in" + (f"?back={back}" if back else "")
        token = form_token(self.client.get(path).text)
        return self.client.post(path, data={"form_token": token, "user": user, "password": password})

    def get(self, path, status=200):
        response = self.client.get(path)
        assert response.status_code == status, response.text
        return Page(response.text)

    def post(self, path, token=None, **fields):
        token = token or form_token(self.client.get("/projects").text)
        return self.client.post(path, data={"form_token": token, **fields})
