"""Chooses the style in which code is uploaded: script, unless this function or this API base needs a module. Pure."""

from __future__ import annotations

from dataclasses import replace

from kapso_sync.model.api_facts import ApiFacts
from kapso_sync.model.desired import CodeStyle, DesiredFunction
from kapso_sync.model.functions import CODE, DESCRIPTION, Content, RemoteFunction, content_hash
from kapso_sync.model.json_values import Json
from kapso_sync.model.plan import Origin, Update, Write
from kapso_sync.model.state import InventoryRecord
from kapso_sync.reconcile.plan.last_applied import code_digest
from kapso_sync.reconcile.plan.line_ends import comparable_content


def in_preferred_style(want: DesiredFunction, facts: ApiFacts) -> DesiredFunction:
    """Return the function in the style that is tried first."""
    return want.in_style(preferred_style(facts))


def preferred_style(facts: ApiFacts) -> CodeStyle:
    """Return the style that is tried first: script, unless only modules were seen to run on this base."""
    modules_only = facts.script_runs is False and facts.module_runs is True
    return CodeStyle.MODULE if modules_only else CodeStyle.SCRIPT


def in_style_of(
    want: DesiredFunction,
    remote: RemoteFunction,
    stored: Content,
    last_applied: InventoryRecord | None,
    facts: ApiFacts,
) -> DesiredFunction:
    """Return the function in the style that it has on Kapso, if the code is the same; otherwise in the preferred style.

    So a function that is live as a module is in sync, also for a process without state.
    """
    for style in CodeStyle:
        styled = want.in_style(style)
        code = comparable_content(styled, remote, last_applied)[CODE]
        if stored.get(CODE) == code or (last_applied is not None and last_applied.wanted.get(CODE) == code):
            return styled
    return in_preferred_style(want, facts)


def other_style_step(step: Write, down: RemoteFunction, owned: InventoryRecord, facts: ApiFacts) -> Update | None:
    """Return the step that tries code that ended in ``error`` in the other style, or None if that would prove nothing.

    Each attempt is tried in the other style once. It proves nothing if the failed style is known to run on this base and the
    code was uploaded unchanged, or if the other style is known not to run: then the code itself is at fault.
    """
    style = step.desired.style
    if style is None or owned.other_style_tried == step.desired.attempt:
        return None
    if style_runs(facts, style) is True and (not step.desired.compiled or style_runs(facts, style.other) is False):
        return None
    other = step.desired.in_style(style.other)
    payload: dict[str, Json] = {CODE: other.code}
    if down.mark is not None and down.mark.applied is not None:
        applied = replace(down.mark.applied, code=code_digest(other.code), running=False)
        payload[DESCRIPTION] = f"{down.text}{replace(down.mark, applied=applied)}"
    return Update(
        slug=step.slug,
        function_id=down.id,
        origin=Origin.RECOVERY,
        fields=(CODE,),
        reasons=(f"it ended in `error` as a {style}; tried once as a {style.other}",),
        file=step.file,
        desired_hash=content_hash(other.content),
        desired=other,
        payload=payload,
        protected=step.protected,
        secrets=step.secrets,
        secret_values=step.secret_values,
        listed_secrets=step.listed_secrets,
        remote=down,
        last_applied=replace(owned, other_style_tried=step.desired.attempt),
        known_secrets=owned.secrets,
    )


def style_runs(facts: ApiFacts, style: CodeStyle) -> bool | None:
    """Return whether code of a style was seen to run on this base; None: not seen."""
    return facts.script_runs if style is CodeStyle.SCRIPT else facts.module_runs


def learned_style(facts: ApiFacts, runs: CodeStyle, *, failed: CodeStyle | None = None) -> ApiFacts:
    """Return the facts after a style went live; ``failed`` is the style in which the same source ended in ``error`` before.

    A style that was seen to run before is not marked as failing because of one function.
    """
    seen = {runs: True}
    if failed is not None and style_runs(facts, failed) is not True:
        seen[failed] = False
    return replace(
        facts,
        script_runs=seen.get(CodeStyle.SCRIPT, facts.script_runs),
        module_runs=seen.get(CodeStyle.MODULE, facts.module_runs),
    )
