"""The wheel: which model serves, the policy, and a round that begins now."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog
from flask import Response, g, request

from kdal.rounds import models
from kdal.storage.tables import START_TRAINING
from kdal.web.pages.policy_form import FIRST, as_text, fields, problems, read, stamp
from kdal.web.pages.policy_store import ChangedMeanwhileError
from kdal.web.pages.project import shown
from kdal_core.errors import KdalError

if TYPE_CHECKING:
    from kdal.web.pages.blueprint import Pages

log = structlog.get_logger()


def add_to(pages: Pages) -> None:
    """Add these addresses."""
    route, resources = pages.blueprint.route, pages.resources

    def choose(number: int, chosen: Callable[[], models.Choice]) -> Any:
        pages.view(number)
        try:
            choice = chosen()
        except KdalError as error:
            return shown(pages, number, problem=str(error)), 409
        log.info("model chosen on the page", project=number, model=choice.model, by=g.session.user)
        return pages.redirect(f"{number}?said=chosen")

    @route("/<int:number>/models/<int:model>/promote", methods=["POST"])
    def promote(number: int, model: int) -> Any:
        return choose(number, lambda: models.promote(resources, number, model))

    @route("/<int:number>/rollback", methods=["POST"])
    def rollback(number: int) -> Any:
        return choose(number, lambda: models.rollback(resources, number))

    @route("/<int:number>/start", methods=["POST"])
    def start(number: int) -> Response:
        view = pages.view(number)
        if view.standing.last is None or view.standing.last.state != "open":
            return pages.redirect(f"{number}?said=not-open")
        resources.storage.add_event(number, START_TRAINING)
        log.info("round started on the page", project=number, by=g.session.user)
        return pages.redirect(f"{number}?said=started")

    @route("/<int:number>/policy", methods=["GET", "POST"])
    def policy(number: int) -> Any:
        view = pages.view(number)
        project = view.standing.project

        def form(values: dict[str, str], *, wrong: dict[str, str], seen: str, **more: Any) -> str:
            return pages.page(
                "policy.html",
                project=project,
                fields=fields(),
                first=FIRST,
                values=values,
                wrong=wrong,
                seen=seen,
                **more,
            )

        if request.method == "GET":
            current = pages.policies.current(project)
            return form(as_text(current), wrong={}, seen=stamp(current))
        asked = read(request.form)
        texts = {name: request.form.get(f"key-{name}", "").strip() for name in (field.key for field in fields())}
        seen = request.form.get("seen", "")
        if wrong := problems(resources, project.label_config, asked):
            return form(texts, wrong=wrong, seen=seen), 422
        try:
            pages.policies.change(project, asked, seen=seen, who=g.session.user or "")
        except ChangedMeanwhileError as error:
            current = pages.policies.current(project)
            return form(texts, wrong={"": str(error)}, seen=stamp(current), now=as_text(current)), 409
        except KdalError as error:
            return form(texts, wrong={"": str(error)}, seen=seen), 409
        log.info("policy changed on the page", project=number, by=g.session.user)
        return pages.redirect(f"{number}?said=policy")
