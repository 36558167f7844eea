"""What a person reads when Label Studio refuses, redirects or is not there, and what to do about it."""

import pytest

from kdal.labelstudio.client import LabelStudioClient, LabelStudioError
from tests.kdal.conftest import TOKEN
from tests.kdal.labelstudio.calls import CALLS, Everywhere, answer, failure
from tests.kdal.servers import Answer

# ---------------------------------------------------------------------- refusals that say what to do


@pytest.mark.parametrize("call", ["create_backend", "create_webhook"])
@pytest.mark.parametrize(
    "reason",
    [
        "URL resolves to a reserved network address (block: 172.16.0.0/12)",
        "The provided URL was not allowed. URLs must use http:// or https://, and must not resolve to local or "
        "private network addresses when SSRF protection applies.",
    ],
)
def test_an_address_that_label_studio_bans_is_told_with_the_setting_that_allows_it(client, web, call, reason):
    error = failure(call, web, answer({"detail": reason}, 403), client)
    assert "USE_DEFAULT_BANNED_SUBNETS=false" in str(error)
    assert reason in str(error)
    assert (error.status, error.transient) == (403, False)


def test_a_refusal_for_another_reason_does_not_name_the_ban(client, web):
    error = failure("create_backend", web, answer({"detail": "You do not have permission."}, 403), client)
    assert "BANNED" not in str(error)


def test_a_host_that_label_studio_does_not_know_is_told_with_the_setting(client, web):
    error = failure("create_backend", web, answer({"detail": "Can't resolve hostname kdal"}, 500), client)
    assert "KDAL_URL" in str(error)


# ---------------------------------------------------------------------- redirects


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed_and_the_message_says_what_to_set(client, web, other_web, call, status):
    """A POST that is redirected becomes a GET, whose answer looks like success; the token would go along."""
    other_web.answers = Everywhere(answer({"created": 1, "task_count": 1, "tasks": [], "total": 0}))
    web.answers = Everywhere(Answer(status=status, headers={"Location": f"{other_web.url}/elsewhere?token=5ec4e7"}))
    with pytest.raises(LabelStudioError, match=f"to {other_web.url}/elsewhere .*LABEL_STUDIO_URL") as caught:
        CALLS[call](client)
    assert caught.value.status == status
    assert "5ec4e7" not in str(caught.value)
    assert len(web.seen) == 1
    assert other_web.seen == []


@pytest.mark.parametrize(
    ("location", "setting"),
    [
        ("https://ls.example.com/api/projects/3", "https://ls.example.com"),
        ("https://ls.example.com/ls/api/projects/3/", "https://ls.example.com/ls"),
        ("/ls/api/projects/3", "{url}/ls"),
        ("//ls.example.com/api/projects/3", "http://ls.example.com"),
        ("https://ls.example.com/user/login/?next=/api/projects/3", "the address at which"),
        ("", "the address at which"),
    ],
)
def test_the_setting_is_worked_out_where_the_redirect_keeps_the_path(client, web, location, setting):
    web.answers["/api/projects/3"] = Answer(status=301, headers={"Location": location})
    with pytest.raises(LabelStudioError) as caught:
        client.project(3)
    assert f"set LABEL_STUDIO_URL to {setting.format(url=web.url)}" in str(caught.value)


@pytest.mark.parametrize("location", ["http://[", "http://host:port/", "\u00ff://", "http://a b/"])
def test_a_redirect_to_no_address_is_a_label_studio_error(client, web, location):
    web.answers["/api/projects/3"] = Answer(status=301, headers={"Location": location})
    with pytest.raises(LabelStudioError):
        client.project(3)


def test_a_moved_server_stays_moved_and_a_detour_may_end(client, web):
    for status, transient in ((301, False), (308, False), (302, True), (303, True), (307, True)):
        web.answers["/api/projects/3"] = Answer(status=status, headers={"Location": "/maintenance.html"})
        with pytest.raises(LabelStudioError) as caught:
            client.project(3)
        assert caught.value.transient is transient


# ---------------------------------------------------------------------- what a stranger reads


def test_nobody_there_is_told_in_the_systems_words():
    with pytest.raises(LabelStudioError) as caught:
        LabelStudioClient("http://127.0.0.1:1", TOKEN).project(3)
    assert str(caught.value) == (
        "Label Studio at http://127.0.0.1:1 does not answer (Connection refused): is it running, and is "
        "LABEL_STUDIO_URL right?"
    )


def test_a_host_that_nobody_knows_is_told_without_the_librarys_objects():
    with pytest.raises(LabelStudioError, match="does not answer") as caught:
        LabelStudioClient("http://nobody.invalid", TOKEN).project(3)
    assert "HTTPConnection" not in str(caught.value)
    assert "object at" not in str(caught.value)


def test_a_project_that_is_not_there_is_named(client, web):
    error = failure("project", web, answer({"detail": "No Project matches the given query."}, 404), client)
    assert f"Label Studio at {web.url} has no project 3, or LABEL_STUDIO_API_KEY may not see it" in str(error)


def test_a_kdal_that_label_studio_cannot_reach_is_told_with_what_to_do(client, web):
    """As Label Studio 1.23.2 words it, for administrators and browsers."""
    reason = (
        "Can't connect to ML backend http://127.0.0.1:5, health check failed. Make sure it is up and your firewall is "
        'properly configured. <a href="https://labelstud.io/guide/ml.html">Learn more</a>'
    )
    error = failure("create_backend", web, answer({"non_field_errors": [reason]}, 400), client)
    assert error.status == 400
    assert "Label Studio gets no answer from kdal at http://127.0.0.1:5: start `kdal up`" in str(error)
    assert "<a href" not in str(error)
