"""Writes a plan as Markdown for a pull request's comment: deletions first, diffs folded, within the length limit."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from kapso_sync.advice import Advise, as_it_is
from kapso_sync.cli.render import plan_summary
from kapso_sync.cli.summary import revision_line
from kapso_sync.model.plan import Blocked, Create, Delete, NoChange, Plan, Step
from kapso_sync.visible import visible, visible_code

MAX_LENGTH = 65_000
"""Maximum number of characters; GitHub takes 65,536, and the program that posts the text may add a line."""

MAX_REASON = 500
"""Most characters of one function's reasons."""

_SPECIAL = re.compile(r"([\\`*_\[\]|~#!])")
_RUN = re.compile(r"`+")
_MARKER = re.compile(r"[^A-Za-z0-9/._@#+-]")
_TABLE = ("| function | action | why |", "|---|---|---|")
_DELETIONS_TITLE = """### Deletions

What is deleted is gone for good, id and secrets included; code and fields are saved to `backups/` first."""
_DELETIONS = ("| function | id | why |", "|---|---|---|")


def plan_markdown(plan: Plan, advise: Advise = as_it_is) -> str:
    """Return a plan as Markdown of at most `MAX_LENGTH` characters; a note says what was left out.

    ``advise`` completes the commands that make this plan again.
    """
    deletions = [step for step in plan.steps if _deletes(step)]
    others = [step for step in plan.steps if not (_deletes(step) or isinstance(step, NoChange))]
    tail = _tail(plan, advise)
    shown = advise("`kapso-sync plan` shows everything")
    page = _Page(MAX_LENGTH - len(tail) - len(shown) - _NOTE_ROOM)
    page.add(_head(plan))
    page.table(_DELETIONS_TITLE, _DELETIONS, deletions)
    page.table("### Changes", _TABLE, others)
    for step in others:
        if _diff(step):
            page.add(_folded(step))
    return page.text + page.note(shown) + tail


_NOTE_ROOM = 300


class _Page:
    """Collects blocks while they fit; a block is added as a whole or not at all."""

    def __init__(self, room: int) -> None:
        self.text = ""
        self._room = room
        self._left_out = 0

    def add(self, block: str) -> None:
        """Add a block, or count it as left out."""
        if len(self.text) + len(block) + 1 <= self._room:
            self.text += f"{block}\n"
        else:
            self._left_out += 1

    def table(self, title: str, head: Sequence[str], steps: Sequence[Step]) -> None:
        """Add a table with one row for each step that fits."""
        if not steps:
            return
        self.add("\n".join((title, "", *head)))
        for step in steps:
            self.add(_row(step))
        self.add("")

    def note(self, shown: str) -> str:
        """Return what was left out, if anything; ``shown`` says where it is."""
        if not self._left_out:
            return ""
        parts = "part does" if self._left_out == 1 else "parts do"
        return f"> **Cut.** {self._left_out} {parts} not fit into a comment; {shown}.\n\n"


def _head(plan: Plan) -> str:
    # Whoever updates the comment finds it by this line; an owner names one source and environment.
    lines = [f"<!-- kapso-sync plan {_marked(plan.owner)} -->", f"## kapso-sync plan for {_inline(plan.owner)}", ""]
    lines += [f"{_inline(plan.source)} at {_inline(revision_line(plan.revision))}", ""]
    lines += [f"**{_inline(plan_summary(plan))}**", ""]
    return "\n".join(lines)


def _tail(plan: Plan, advise: Advise) -> str:
    lines: list[str] = []
    if plan.notices:
        shown, more = plan.notices[:20], len(plan.notices) - 20
        lines += ["### Warnings", ""]
        lines += [f"- {f'{_cut(str(notice.location))}: ' if notice.location else ''}{_cut(notice.message)}" for notice in shown]
        lines += [f"- and {more} more"] if more > 0 else []
        lines.append("")
    if plan.changes:
        lines += [advise(f"Apply exactly this plan: `kapso-sync sync --expect {plan.digest}`"), ""]
    return "\n".join(lines)


def _deletes(step: Step) -> bool:
    return isinstance(step, Delete) or (isinstance(step, Blocked) and step.wanted == "delete")


def _row(step: Step) -> str:
    why = "<br>".join(_inline(reason) for reason in step.explanation)
    if len(why) > MAX_REASON:
        why = _cut("; ".join(step.explanation))
    if isinstance(step, Blocked) and _deletes(step):
        why = f"**held**: {why}"
    second = _inline(step.function_id or "") if _deletes(step) else _action(step)
    return f"| {_inline(step.slug)} | {second} | {why} |"


def _action(step: Step) -> str:
    if isinstance(step, Blocked):
        return f"**blocked** ({step.wanted})" if step.wanted else "**blocked**"
    if step.action == "invalid":
        return "**invalid**"
    return f"{step.action} and deploy" if step.deploys and step.action != "deploy" else step.action


def _diff(step: Step) -> str:
    """Return a folded diff. A deletion has nothing to compare; a new function's code is in the pull request."""
    whole = isinstance(step, Create | Delete) or (isinstance(step, Blocked) and step.wanted in ("create", "delete"))
    return "" if whole else step.diff


def _folded(step: Step) -> str:
    lines = [visible_code(line) for line in _diff(step).split("\n")[:-1]]
    body = "\n".join(lines)
    longest = max((len(run) for run in _RUN.findall(body)), default=0)
    fence = "`" * max(3, longest + 1)
    summary = f"<summary>{html.escape(visible(step.slug))}: {html.escape(step.action)}</summary>"
    return f"<details>{summary}\n\n{fence}diff\n{body}\n{fence}\n\n</details>\n"


def _cut(text: str) -> str:
    return _inline(text if len(text) <= MAX_REASON // 2 else f"{text[: MAX_REASON // 2]}…")


def _inline(text: str) -> str:
    """Return text that is only text in a paragraph or a table's cell: no markup, no HTML, no mention, no second line."""
    escaped = _SPECIAL.sub(r"\\\1", html.escape(visible(" ".join(text.split())), quote=False))
    return escaped.replace("@", "@&#8203;")


def _marked(text: str) -> str:
    return re.sub("-{2,}", "-", _MARKER.sub("-", text)).strip("-")
