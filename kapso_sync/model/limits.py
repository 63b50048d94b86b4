"""How many functions one pass may delete."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MaxDelete:
    """A number of functions, or a percentage of the owned ones."""

    amount: int
    percent: bool = False

    def limit(self, owned: int) -> int:
        """Return the number allowed; a percentage rounds down, but at least one is allowed."""
        if not self.percent:
            return self.amount
        return max(1, owned * self.amount // 100)

    def __str__(self) -> str:
        """The spelling that settings use."""
        return f"{self.amount}%" if self.percent else str(self.amount)
