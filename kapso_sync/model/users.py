"""Defines who uses a function: workflows, WhatsApp Flows, webhooks, other functions."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import UsersUnknown
from kapso_sync.model.functions import RemoteFunction


class UserKind(enum.StrEnum):
    """What uses a function."""

    WORKFLOW = "workflow"
    FLOW = "WhatsApp Flow"
    WEBHOOK = "webhook"
    FUNCTION = "function"


@dataclass(frozen=True, slots=True, order=True)
class FunctionUser:
    """A user, which stops working when the function is deleted; ``name`` is its display name."""

    kind: UserKind
    name: str

    def __str__(self) -> str:
        """The user as a sentence names it, such as ``workflow Order intake``."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class WhatsAppFlow:
    """A WhatsApp Flow, and the id of the function that is its data endpoint, if it has one."""

    id: str
    function_id: str | None


FunctionUsers = Mapping[str, tuple[FunctionUser, ...]]
"""Users by function id. A function that was looked up and has no user has an empty tuple; a missing one was not looked up."""


@dataclass(frozen=True, slots=True)
class FoundUsers:
    """The users that were found; ``unknown`` is the error because of which there may be more, or None."""

    users: FunctionUsers
    unknown: UsersUnknown | None = None


def is_named_in(function: RemoteFunction, folded: str) -> bool:
    """Return whether a casefolded text (see `str.casefold`) contains a function's id or its worker's address.

    Both count in any place, even in the middle of a word: a deletion that is blocked without need does less harm than one that
    should have been blocked.
    """
    address = function.worker_address
    if function.id.casefold() in folded or (address is not None and address.casefold() in folded):
        return True
    # The script's name, and with it the first part of the worker's host. Source: Kapso's documentation.
    return function.project_id is not None and f"prj-{function.project_id}__{function.slug}.".casefold() in folded
