"""What an agent does with its events: acknowledged, dead letters, replies."""

import json
from dataclasses import dataclass, field
from typing import Any

from tests.support.fakes import NOW, Event, Message


@dataclass
class AgentSite:
    """The surroundings of an agent. acked: acknowledged events; dead_letters: events with their
    reasons; sent: replies; skipped: how many events were skipped."""

    topic: str = "t"
    acked: list[Event] = field(default_factory=list)
    dead_letters: list[tuple[Event, str]] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)
    skipped: int = 0

    def event(self, offset: int, key: str | None, value: bytes | None) -> Event:
        """An event of the topic."""
        message = Message(self.topic, 0, offset, NOW, key.encode() if key else None, value)
        return Event(message, self.acked)

    async def dead_letter(self, event: Any, reason: str) -> None:
        """Note a dead letter; its event is not acknowledged yet."""
        assert event not in self.acked
        self.dead_letters.append((event, reason))

    async def send(self, key: bytes | None, value: bytes) -> None:
        """Note a reply."""
        self.sent.append(json.loads(value))
