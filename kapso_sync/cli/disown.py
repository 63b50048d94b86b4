"""``disown``: takes our marks off the functions of a source, for those who leave."""

from __future__ import annotations

from kapso_sync.cli.context import CommandContext
from kapso_sync.cli.runner import run_to_end
from kapso_sync.errors import ExitCode, UsageError
from kapso_sync.model.json_values import Json
from kapso_sync.plurals import counted
from kapso_sync.session import Session
from kapso_sync.wiring.engine import open_session


def disown(context: CommandContext, only: tuple[str, ...], *, yes: bool, json_output: bool) -> int:
    """Remove our marks from the functions' descriptions, or without ``yes`` only list them; return 1 if one failed."""
    settings = context.load_settings()

    async def work() -> int:
        bus = context.event_bus(settings)
        async with open_session(settings, bus, writes=yes) as session:
            return await _disown(session, only, context, yes=yes, json_output=json_output)

    return run_to_end(work)


async def _disown(session: Session, only: tuple[str, ...], context: CommandContext, *, yes: bool, json_output: bool) -> int:
    owned = await session.owned_functions()
    unknown = set(only) - {remote.slug for remote in owned}
    if unknown:
        raise UsageError(f"not ours: {', '.join(sorted(unknown))}", hint="`kapso-sync disown` lists what is")
    chosen = [remote for remote in owned if not only or remote.slug in only]
    results = await session.disown(chosen) if yes else ()
    failed = {result.slug: result.error for result in results if result.error is not None}
    if json_output:
        functions = [_document(remote.slug, remote.id, failed.get(remote.slug), yes=yes) for remote in chosen]
        context.stdout().document({"owner": session.owner, "functions": functions})
    else:
        console = context.stdout()
        done = [remote.slug for remote in chosen if remote.slug not in failed]
        if done:
            console.line(f"- {console.names(done)}")
        for slug, error in failed.items():
            console.line((f"! {slug}", "magenta"), f"  {error}")
        number = f"{counted(len(chosen), 'function')} of {session.owner}"
        doing_it = context.advise(f"`kapso-sync disown --yes{''.join(f' --only {slug}' for slug in only)}` does it.")
        console.line(
            f"{number}: {len(chosen) - len(failed)} disowned, {len(failed)} failed."
            if yes
            else f"{number} would lose the mark in the description, and nothing else; {doing_it}",
            style="bold",
        )
    return int(ExitCode.FUNCTION_FAILED if failed else ExitCode.OK)


def _document(slug: str, function_id: str, error: str | None, *, yes: bool) -> dict[str, Json]:
    return {"slug": slug, "id": function_id, "disowned": yes and error is None, "error": error}
