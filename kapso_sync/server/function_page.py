"""Renders the views of one function: what is wrong and what to do, code, checks, history, backups, and invocations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from kapso_sync.errors import KapsoSyncError
from kapso_sync.model.function_view import (
    BackupSummary,
    BackupView,
    CheckResult,
    FunctionRecord,
    InvocationsView,
    InvocationView,
    RevisionHistory,
)
from kapso_sync.model.source import Revision
from kapso_sync.model.status import Condition, ConditionType, DaemonStatus, FunctionStatus, ReadyReason
from kapso_sync.plurals import counted, span
from kapso_sync.server.listing import AS_EXPECTED, notes, telling
from kapso_sync.server.markup import (
    SHAPES,
    TONES,
    WORDS,
    Frame,
    button,
    commit,
    diff_block,
    diff_size,
    done_banner,
    escape,
    function_path,
    level_class,
    level_mark,
    render_frame,
    sign_in_path,
    state_badge,
    time_tag,
    took,
    with_commands,
)
from kapso_sync.server.page import footer
from kapso_sync.server.sessions import Viewer

_TONE_OF_STATE = {"Ready": "good", "Reconciling": "busy", "Drifted": "paused", "Stalled": "bad", "NotReady": "bad"}

_WHAT_TO_DO = {
    ReadyReason.PENDING: "Nothing: it is being applied.",
    ReadyReason.NOT_TRIED: "Nothing: the next pass tries it.",
    ReadyReason.BACK_OFF: "Nothing, if the cause has gone: it is tried again by itself. Reconcile tries it at once.",
    ReadyReason.FAILED: "It is tried again by itself. If the cause is in the code, push a fix.",
    ReadyReason.INVALID: "Correct it in git and push: the next commit is read by itself.",
    ReadyReason.BLOCKED: "Remove what blocks it: the next pass goes on by itself.",
    ReadyReason.OSCILLATING: "Find who or what else writes it on Kapso.",
    ReadyReason.DRIFT_REPORTED: "Bring the change into git, or undo it on Kapso.",
    ReadyReason.DELETION_PENDING: "Nothing, if it is meant to go. List it in git again to keep it.",
    ReadyReason.CHECK_FAILED: "Push a fix. Retry deploys the same code once more.",
    ReadyReason.WATCH_FAILED: "Push a fix. Retry deploys the same code once more.",
    ReadyReason.DEPLOYMENT_FAILED: "Push a fix. Retry deploys the same code once more.",
}


_RETRIED = frozenset(
    {
        ReadyReason.FAILED,
        ReadyReason.BACK_OFF,
        ReadyReason.CHECK_FAILED,
        ReadyReason.WATCH_FAILED,
        ReadyReason.DEPLOYMENT_FAILED,
    }
)
"""Reasons for which trying the same content again may help."""


def render_function(
    status: DaemonStatus, function: FunctionStatus, record: FunctionRecord | None, viewer: Viewer, done: str = ""
) -> str:
    """Return the view of a function; ``record`` is None for who may not see it."""
    path = function_path(function.slug)
    frame = Frame(f"{function.slug}: {WORDS[function.state]}", path, status.source, footer(status), viewer)
    more = _locked(path) if record is None else _record(status, function, record)
    return render_frame(
        frame,
        f"""{done_banner(done)}{_heading(function.slug, "All functions", "/")}
{_now(status, function, viewer)}
{_conditions(function, status.now)}
{_wanted(function)}
{more}""",
    )


def _heading(title: str, above: str, path: str) -> str:
    return (
        f'<nav class="above" aria-label="Breadcrumb"><a href="{escape(path, quote=True)}">{escape(above)}</a></nav>\n'
        f"<h1>{escape(title)}</h1>"
    )


def _now(status: DaemonStatus, function: FunctionStatus, viewer: Viewer) -> str:
    """Return what is going on: what failed, in which commit, at which line, and what to do."""
    tone, state, decided = _TONE_OF_STATE[function.state], function.state, telling(function)
    shape = f'<span aria-hidden="true" class="shape">{SHAPES[TONES[tone]]}</span>'
    since = f'<span class="since">for {span((status.now - decided.since).total_seconds())}</span>'
    ready = function.condition(ConditionType.READY)
    facts = "" if ready.status and state == "Ready" else _facts(status, function, decided if ready.status else ready)
    expected = state == "Ready" and decided.reason in AS_EXPECTED
    said = '<p class="message">It runs what git says.</p>' if expected else ""
    return f"""<section id="standing" class="card verdict {tone}" aria-labelledby="verdict">
<div role="status"><h2 id="verdict">{shape} {WORDS[state].capitalize()}</h2></div>
{since}{said}{facts}{_console(function, viewer)}{notes(function, status.now)}
{_actions(status, function, viewer)}
</section>"""


def _console(function: FunctionStatus, viewer: Viewer) -> str:
    """Return the last lines of the console of what failed, which may hold people's data, for who may see it."""
    if function.evidence is None or not function.evidence.console or not viewer.trusted:
        return ""
    slug = escape(function.slug, quote=True)
    lines = "".join(f"<span>{escape(line)}\n</span>" for line in function.evidence.console)
    return f'<pre tabindex="0" role="region" aria-label="Console of {slug}"><code>{lines}</code></pre>'


def _facts(status: DaemonStatus, function: FunctionStatus, told: Condition) -> str:
    what = told.message if function.hint is None else told.message.removesuffix(f"; {function.hint}")
    reason = f'<span class="reason">{escape(told.reason)}</span> ' if told.reason else ""
    facts = [("What", f"{reason}{escape(what)}")]
    if function.broken_by is not None:
        facts.append(("Since commit", _cause(status, function.broken_by)))
    if function.place is not None:
        facts.append(("At", f"<code>{escape(function.place)}</code>"))
    if (advice := function.hint or _WHAT_TO_DO.get(_reason(told))) is not None:
        facts.append(("What to do", with_commands(advice)))
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'<dl class="wrong">{items}</dl>'


def _reason(condition: Condition) -> ReadyReason:
    return ReadyReason(condition.reason) if condition.reason in set(ReadyReason) else ReadyReason.UNKNOWN


def _cause(status: DaemonStatus, cause: Revision) -> str:
    newest = status.revision
    when = newest.committed_at if newest is not None and newest.id == cause.id else None
    return commit(cause, when, status.now)


def _actions(status: DaemonStatus, function: FunctionStatus, viewer: Viewer) -> str:
    session = viewer.session
    if session is None:
        return ""
    failed = _reason(function.condition(ConditionType.READY)) in _RETRIED
    buttons = [button(function_path(function.slug, "retry"), "Retry", session, strong=True)] if failed else []
    buttons.append(button("/reconcile", "Reconcile all", session))
    held = (
        f'<p class="note">Suspended: {escape(status.suspension.reason)}. It takes effect once the daemon is resumed.</p>'
        if status.suspension is not None
        else ""
    )
    return f'<div class="actions">{"".join(buttons)}</div>{held}'


def _conditions(function: FunctionStatus, now: datetime) -> str:
    items = "".join(
        f"<div><dt>{condition.type}</dt><dd><strong>{'yes' if condition.status else 'no'}</strong> "
        f'<span class="note">{escape(condition.reason)}, since {time_tag(condition.since, now)}</span>'
        f"{'' if condition.message in before else f'<p>{escape(condition.message)}</p>'}</dd></div>"
        for condition, before in _with_those_before(function.conditions)
    )
    return (
        '<section id="conditions" aria-labelledby="conditions-heading"><h2 id="conditions-heading">Conditions</h2>'
        f'<dl class="card rows">{items}</dl></section>'
    )


def _with_those_before(conditions: Sequence[Condition]) -> list[tuple[Condition, set[str]]]:
    """Return each condition with the messages of those before it: most say the same, and once is enough."""
    return [(each, {other.message for other in conditions[:number]}) for number, each in enumerate(conditions)]


def _wanted(function: FunctionStatus) -> str:
    """Return what differs between git and Kapso."""
    body = (
        f'<details id="wanted" open><summary>From Kapso to git {diff_size(function.diff)}</summary>'
        f"{diff_block(function.diff, f'Diff of {function.slug}, from Kapso to git')}</details>"
        if function.diff
        else f'<p class="card empty">{_nothing_differs(function)}</p>'
    )
    return _section("wanted-live", "Wanted and live", body)


def _nothing_differs(function: FunctionStatus) -> str:
    if function.action == "invalid":
        return "Git's version cannot be used, so that it is not compared. What is on Kapso stays."
    return "Nothing is known to differ."


def _section(name: str, title: str, body: str) -> str:
    return f'<section id="{name}" aria-labelledby="{name}-heading"><h2 id="{name}-heading">{title}</h2>\n{body}</section>'


def _locked(path: str) -> str:
    return _section(
        "more",
        "Code, checks, history, backups, invocations",
        f'<p class="card empty">They are shown to who has the admin token. <a href="{sign_in_path(path)}">Sign in</a></p>',
    )


def _record(status: DaemonStatus, function: FunctionStatus, record: FunctionRecord) -> str:
    return "\n".join(
        (
            _changed(function, record, status.now),
            _section("checks", "Checks", _checks(record.checks, status.now)),
            _section("invocations", "Invocations", _way_to_invocations(function)),
            _section("history", "History", _history(record.history, status.now)),
            _section("backups", "Backups", _backups(function.slug, record.backups, status.now)),
        )
    )


def _changed(function: FunctionStatus, record: FunctionRecord, now: datetime) -> str:
    former = record.former
    if former is None or not record.changed:
        body = '<p class="card empty">No other version is known to have run before.</p>'
    else:
        saved = f"Saved {time_tag(former.saved_at, now)}"
        if record.rolled_back:
            note, what = f"{saved}, when it failed and was rolled back.", "what was rolled back"
        else:
            note, what = f"{saved} ({escape(former.reason)}), before it was overwritten.", "what ran before"
        body = (
            f'<p class="note">{note}</p>'
            f'<details id="changed"><summary>From {what} to what runs {diff_size(record.changed)}</summary>'
            f"{diff_block(record.changed, f'Diff of {function.slug}, from {what} to what runs')}</details>"
        )
    return _section("before-live", "Live and before", body)


def _checks(checks: Iterable[CheckResult], now: datetime) -> str:
    items = "".join(_check(check, now) for check in checks)
    return f'<ul class="card plain">{items}</ul>' if items else '<p class="card empty">None has run yet.</p>'


def _check(check: CheckResult, now: datetime) -> str:
    if check.count is not None:
        seconds = f" after {took(check.seconds)}" if check.seconds is not None else ""
        badge = state_badge("Ready", "passed")
        answer = f'<p class="message">the last got {escape(check.answer)}</p>' if check.answer else ""
        return f"<li>{badge} {counted(check.count, 'check')}{seconds}, {time_tag(check.at, now)}{answer}</li>"
    return (
        f"<li>{state_badge('Stalled', 'failed')} check {check.number}, {time_tag(check.at, now)}"
        f'<p class="message">expected {escape(check.expected)}</p><p class="message">got {escape(check.answer)}</p></li>'
    )


def _way_to_invocations(function: FunctionStatus) -> str:
    if function.function_id is None:
        return '<p class="card empty">It is not on Kapso yet.</p>'
    path = function_path(function.slug, "invocations")
    return f'<p class="card empty"><a href="{path}">Ask Kapso for the newest</a>, which costs a call or two.</p>'


def _history(history: Iterable[RevisionHistory], now: datetime) -> str:
    items = "".join(_of_revision(each, now) for each in history)
    return f'<ol class="card commits">{items}</ol>' if items else '<p class="card empty">Nothing is known.</p>'


def _of_revision(each: RevisionHistory, now: datetime) -> str:
    of = "An unknown revision" if each.revision is None else commit(each.revision, None, now)
    said = [f"live in {took(each.deploy_seconds)}"] if each.deploy_seconds is not None else []
    said += ["rolled back"] if each.rolled_back else []
    live = f'<span class="note">{", then ".join(said)}</span>' if said else ""
    entries = "".join(
        f'<li class="{level_class(entry.level)}">{time_tag(entry.at, now)} '
        f"<p>{level_mark(entry.level)}{escape(entry.text)}</p></li>"
        for entry in each.entries
    )
    return f'<li><p class="revision">{of} {live}</p><ol class="events">{entries}</ol></li>'


def _backups(slug: str, backups: Iterable[BackupSummary], now: datetime) -> str:
    items = "".join(
        f'<li><a href="{function_path(slug, "backups", each.id)}"><code>{escape(each.id)}</code></a> '
        f"{_about_backup(each, now)}</li>"
        for each in backups
    )
    return f'<ul class="card plain">{items}</ul>' if items else '<p class="card empty">There is none.</p>'


def _about_backup(backup: BackupSummary, now: datetime) -> str:
    kept = ", was not in git" if backup.kept else ""
    return f'<span class="note">{escape(backup.reason)}, saved {time_tag(backup.saved_at, now)}{kept}</span>'


def render_backup(status: DaemonStatus, function: FunctionStatus, backup: BackupView, viewer: Viewer) -> str:
    """Return the view of one backup: what it differs in from what runs, and how it comes back."""
    slug, summary = function.slug, backup.summary
    path = function_path(slug, "backups", summary.id)
    frame = Frame(f"Backup {summary.id} of {slug}", path, status.source, footer(status), viewer, live=False)
    if backup.diff is None:
        body = '<p class="card empty">What runs is not known here, so that there is nothing to compare it with.</p>'
    elif not backup.diff:
        body = '<p class="card empty">It is what runs.</p>'
    else:
        body = diff_block(backup.diff, f"Diff of {slug}, from the backup to what runs")
    size = f" {diff_size(backup.diff)}" if backup.diff else ""
    return render_frame(
        frame,
        f"""{_heading(f"Backup {summary.id}", slug, function_path(slug))}
<p>{_about_backup(summary, status.now)}</p>
{_section("difference", f"From the backup to what runs{size}", body)}
{_section("restore", "Bring it back", _how_to_restore(slug, summary.id))}""",
    )


def _how_to_restore(slug: str, backup_id: str) -> str:
    command = f"kapso-sync restore {slug} --from {backup_id}"
    return (
        '<p class="card empty">On this machine, in the working folder: '
        f"<code>{escape(command)}</code>. It writes the folder alone; commit and push it to deploy it.</p>"
    )


def render_invocations(
    status: DaemonStatus, function: FunctionStatus, answer: InvocationsView | KapsoSyncError, viewer: Viewer
) -> str:
    """Return the newest invocations, or why there are none to show."""
    slug = function.slug
    frame = Frame(
        f"Invocations of {slug}", function_path(slug, "invocations"), status.source, footer(status), viewer, live=False
    )
    if isinstance(answer, KapsoSyncError):
        hint = f'<p class="hint"><span aria-hidden="true">→</span> {escape(answer.hint)}</p>' if answer.hint else ""
        body = f'<div class="trouble"><p class="error">{escape(answer.message)}</p>{hint}</div>'
    else:
        items = "".join(_invocation(number, each, status.now) for number, each in enumerate(answer.invocations, 1))
        listed = f'<ol class="card invocations">{items}</ol>' if items else '<p class="card empty">Kapso knows none.</p>'
        asked = f'<p class="note">Kapso was asked {time_tag(answer.asked_at, status.now)}. Bodies are not shown.</p>'
        body = f"{asked}\n{listed}"
    return render_frame(frame, f"{_heading(f'Invocations of {slug}', slug, function_path(slug))}\n{body}")


def _invocation(number: int, invocation: InvocationView, now: datetime) -> str:
    code = "?" if invocation.status_code is None else str(invocation.status_code)
    badge = state_badge("Ready" if invocation.succeeded else "Stalled", code)
    duration = f'<span class="note">{invocation.duration_ms:.0f} ms</span>' if invocation.duration_ms is not None else ""
    lines = "".join(
        f'<span class="{"del" if line.level == "error" else "same"}">{escape(f"{line.level:<5} {line.text}")}\n</span>'
        for line in invocation.lines
    )
    shown = (
        f'<pre tabindex="0" role="region" aria-label="Console of invocation {number}"><code>{lines}</code></pre>'
        if lines
        else ""
    )
    note = f'<p class="note">Places are those of the uploaded code: {escape(invocation.note)}</p>' if invocation.note else ""
    return f'<li><p class="head">{badge} {time_tag(invocation.at, now)} {duration}</p>{shown}{note}</li>'
