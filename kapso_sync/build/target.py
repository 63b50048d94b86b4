"""What is asked of code that asks for nothing itself."""

from __future__ import annotations

from dataclasses import dataclass

from kapso_sync.model.desired import Contract


@dataclass(frozen=True, slots=True)
class Target:
    """``contract`` is what entries get that ask for nothing; `Contract.AUTO` is script style, on every API base."""

    contract: Contract = Contract.AUTO
