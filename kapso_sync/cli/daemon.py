"""The commands for a running daemon: ``reconcile``, ``suspend``, ``resume``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kapso_sync.cli.context import CommandContext
from kapso_sync.cli.daemon_client import DaemonClient
from kapso_sync.cli.status import print_status
from kapso_sync.errors import ExitCode, UsageError
from kapso_sync.model.policies import PassOverrides
from kapso_sync.units import parse_duration


def reconcile(context: CommandContext, overrides: PassOverrides, *, wait: bool, json_output: bool) -> int:
    """Request a pass with ``overrides``; with ``wait`` print its result, and return its exit code."""
    answer = DaemonClient.of(context.load_settings()).reconcile(overrides, wait=wait)
    if "suspended" in answer:
        return _not_now(answer, context, wait=wait, json_output=json_output)
    if "leader" in answer:
        return _at_leader(answer, context, wait=wait, json_output=json_output)
    if json_output:
        context.stdout().document(answer)
    elif wait:
        status = answer["status"]
        print_status(context.stdout(), status, advise_next=context.of_source(status["source"]).advise)
    else:
        context.stdout().line("The daemon reconciles now.")
    return int(answer.get("exit_code", ExitCode.OK))


def _not_now(answer: Mapping[str, Any], context: CommandContext, *, wait: bool, json_output: bool) -> int:
    """Report that the daemon is suspended, so that there is no pass to wait for."""
    reason = answer["suspended"]
    if json_output:
        context.stdout().document(answer)
    else:
        ending = context.advise("The daemon reconciles once `kapso-sync resume` ends it.")
        context.stdout().line(f"Suspended: {reason}. {ending}")
    return int(ExitCode.FUNCTION_FAILED if wait else ExitCode.OK)


def _at_leader(answer: Mapping[str, Any], context: CommandContext, *, wait: bool, json_output: bool) -> int:
    """Report that this daemon is a standby, which cannot wait for the leader's pass."""
    leader = answer["leader"] or "the next one, as soon as a replica leads"
    text = f"This replica is a standby. The leader reconciles: {leader}."
    if json_output:
        context.stdout().document(answer)
    else:
        context.stdout().line(text)
    return int(ExitCode.FUNCTION_FAILED if wait else ExitCode.OK)


def suspend(context: CommandContext, reason: str, duration: str | None) -> int:
    """Ask the daemon to write nothing."""
    try:
        seconds = None if duration is None else parse_duration(duration)
    except ValueError as error:
        raise UsageError(f"--for {duration}: {error}", hint="an example: --for 2h") from error
    DaemonClient.of(context.load_settings()).suspend(reason, seconds)
    until = f", or {duration} from now." if duration else "."
    ends = context.advise("`kapso-sync resume` ends it")
    context.stdout().line(f"Suspended: {reason}. {ends}{until}")
    return int(ExitCode.OK)


def resume(context: CommandContext) -> int:
    """Ask the daemon to write again."""
    DaemonClient.of(context.load_settings()).resume()
    context.stdout().line("Resumed; the daemon reconciles now.")
    return int(ExitCode.OK)
