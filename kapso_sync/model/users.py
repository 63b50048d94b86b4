"""Defines who uses a function: workflows, WhatsApp Flows, webhooks, other functions."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class UserKind(enum.StrEnum):
    """What uses a function."""

    WORKFLOW = "workflow"
    FLOW = "WhatsApp Flow"
    WEBHOOK = "webhook"
    FUNCTION = "function"


@dataclass(frozen=True, slots=True, order=True)
class FunctionUser:
    """One thing that stops working when the function is deleted; ``name`` is what people call it."""

    kind: UserKind
    name: str

    def __str__(self) -> str:
        """The user as a sentence names it, such as ``workflow Order intake``."""
        return f"{self.kind} {self.name}"


FunctionUsers = Mapping[str, tuple[FunctionUser, ...]]
"""Users by function id. A function that was looked up and has no user has an empty tuple; one that is missing was not asked."""
