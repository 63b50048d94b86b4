"""What goes wrong in the emulator itself, as opposed to the errors it answers with."""

from __future__ import annotations


class EmulatorError(Exception):
    """The emulator was asked for something it cannot do: a one-line ``message`` and a ``hint`` that says what to do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class BehaviourInvalid(EmulatorError):
    """A behaviour that does not exist, or a value it cannot take."""


class FaultsInvalid(EmulatorError):
    """A fault rule that cannot be used; the message names the rule and, for a file, its line and column."""


class DataUnusable(EmulatorError):
    """The data folder cannot be read or written."""
