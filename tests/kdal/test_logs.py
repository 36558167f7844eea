"""What kdal writes anywhere holds no secret, and nothing that a terminal obeys."""

from __future__ import annotations

import io
import logging

import pytest
import structlog

from kdal import logs
from kdal.settings import Settings


@pytest.fixture
def written(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(logs, "_secrets", ())
    logs.set_up(file)
    yield file
    structlog.reset_defaults()


def test_a_traceback_holds_no_local_variables(written):
    def fails(headers):
        return headers["missing"]

    note = " ".join(["battery", "staple"])  # a traceback shows lines of code, too
    try:
        fails({"note": note})
    except KeyError:
        structlog.get_logger().exception("request failed")
    text = written.getvalue()
    assert "KeyError" in text
    assert "in fails" in text
    assert "battery staple" not in text


@pytest.mark.parametrize(
    "message",
    [
        "GET http://me:TOPSECRET@host:80/a.png: 404",
        "postgresql+psycopg://kdal:TOPSECRET@db/kdal is away",
        "https://bucket/a.png?X-Amz-Credential=TOPSECRET&X-Amz-Signature=TOPSECRET: 403",
        "Max retries exceeded with url: /a.png?token=TOPSECRET",
        "{'Authorization': 'Token TOPSECRET', 'Accept': '*/*'}",
        '{"access_token": "TOPSECRET"}',
        "Authorization: Bearer TOPSECRET",
        "proxy-authorization=Basic TOPSECRET",
        "X-Kdal-Secret: TOPSECRET",
        "password='TOPSECRET'",
        "aws_secret_access_key = TOPSECRET",
        "it was eyJhbGciOiJIUzI1NiJ9.eyJUT1BTRUNSRVQiOjF9.TOPSECRET that came",
    ],
)
def test_what_stands_where_secrets_stand_is_hidden_in_every_log(message, written):
    structlog.get_logger().warning("trouble", reason=message)
    handler = logging.StreamHandler(written)
    logger = logging.getLogger("some.server")
    logger.addHandler(handler)
    try:
        logs.redact_handlers("some.server")
        logger.error("trouble %s", message)
    finally:
        logger.removeHandler(handler)
    assert written.getvalue().count("***") >= 2
    assert "TOPSECRET" not in written.getvalue()


def test_the_secrets_of_the_settings_are_hidden_wherever_they_stand(written):
    settings = Settings(
        label_studio_api_key="key-of-label-studio",
        webhook_secret="secret-of-webhooks",
        auth_user="kdal",
        auth_password="password-of-kdal",
        database_url="postgresql+psycopg://kdal:password-of-tables@db/kdal",
    )
    told = (settings.label_studio_api_key, settings.secret, settings.auth_password, "password-of-tables")
    structlog.get_logger().info("it said " + " and ".join(told))
    assert "it said *** and *** and *** and ***" in written.getvalue()


def test_a_secret_that_holds_another_is_hidden_whole(written):
    logs.keep_secret("abcdef", "abcdefghij", "defghij-klm")
    structlog.get_logger().info("it said abcdefghij and defghij-klm")
    assert "it said *** and ***" in written.getvalue()


def test_long_texts_take_no_longer_than_they_are_long(monkeypatch):
    monkeypatch.setattr(logs, "_secrets", ())
    text = "a" * 300_000 + "-secret. " + "://" * 100_000 + "password" * 30_000
    assert logs.redacted(text) == text


def test_ordinary_words_stay_as_they_are():
    for text in (
        "image s3://bucket/photos/a.png: 404",
        "project=3 round=0 step='train S and T' error='no answer'",
        "set KDAL_AUTH_USER and KDAL_AUTH_PASSWORD",
        "tokens, secrets and passwords are hidden",
        "mail@example.com, http://host/a@b.png",
    ):
        assert logs.redacted(text) == text


def test_control_characters_are_shown_as_numbers():
    assert logs.printable("a\x1b[31mb\x07\u202ec\td\n") == "a\\x1b[31mb\\x07\\u202ec\td\n"
