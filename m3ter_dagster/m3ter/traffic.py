"""What a client has asked m3ter, and how long it waited: an export that is slow or refused is explained by it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass
class Traffic:
    """Counted by all threads of a client from its first request on; seconds are those of all threads together."""

    requests: int = 0
    """Tokens and tries again are among them."""
    tried_again: int = 0
    too_many: int = 0
    """Answers of status 429: m3ter is asked faster than it allows, by this export or by others."""
    tokens: int = 0
    bytes: int = 0
    """Of the answers, as they were sent: most are compressed."""
    seconds_for_answers: float = 0.0
    seconds_for_turns: float = 0.0
    """Waited so that m3ter is not asked too fast."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, **counts: float) -> None:
        with self._lock:
            for name, count in counts.items():
                setattr(self, name, getattr(self, name) + count)

    def counts(self) -> dict[str, int | float]:
        with self._lock:
            found = {name: value for name, value in vars(self).items() if name != "_lock"}
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in found.items()}

    def __str__(self) -> str:
        return (
            f"m3ter was asked {self.requests:,} times, {self.tokens:,} of them for a token, and sent {self.bytes:,} "
            f"bytes; {self.tried_again:,} requests were tried again, {self.too_many:,} had been refused as too many "
            f"(429). All threads together waited {self.seconds_for_answers:,.1f} s for answers and "
            f"{self.seconds_for_turns:,.1f} s for their turns."
        )
