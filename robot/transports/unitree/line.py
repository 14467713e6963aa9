"""Unitree's messages within one process, without DDS: delivered at once and in simulated time, so that faults on the
way can be tried and come out the same every time."""

from collections.abc import Callable

from robot.transports.unitree.bus import ANSWER_WITHIN, NO_ANSWER, Apis, Json, Received, Take
from robot.transports.unitree.layout import Packed, Structure
from robot.transports.unitree.messages import UNKNOWN_API

Tamper = Callable[[Packed], Packed | None]
"""What becomes of a message on its way; None: it is lost."""


class Line:
    """What joins the ends."""

    def __init__(self, now: Callable[[], int]) -> None:
        """`now` is the time, ns."""
        self.now = now
        self.tampers: dict[str, Tamper] = {}
        """Topic -> what becomes of its messages."""
        self.stamps: dict[str, int] = {}
        """Topic -> when its next message was sent by its sender's clock, ns, where that is not the true time."""
        self.inboxes: list[_Inbox] = []
        self.services: dict[str, _Server] = {}

    def end(self, name: str) -> "End":
        """An end for one program."""
        return End(self, name)

    def deliver(self, topic: str, message: Packed, sender: str) -> None:
        """Hands a message to everyone who listens."""
        tamper = self.tampers.get(topic)
        there = Packed(message.structure, bytes(message.buffer))
        changed = tamper(there) if tamper else there
        if changed is None:
            return
        sent = self.stamps.pop(topic, self.now())
        for inbox in self.inboxes:
            if inbox.topic == topic and inbox.open and not (inbox.others_only and inbox.owner == sender):
                own = Packed(changed.structure, bytes(changed.buffer))
                inbox.take(Received(own, sent, sender.encode()))


class End:
    """One program's end; has what `Ends` asks for."""

    domain, interface = 0, "line"

    def __init__(self, line: Line, name: str) -> None:
        self.line, self.name = line, name

    def inbox(
        self, topic: str, structure: Structure, take: Take, newest: bool = False, others_only: bool = False
    ) -> "_Inbox":
        """See `Ends`."""
        return _Inbox(self.line, self.name, topic, take, others_only)

    def outbox(self, topic: str, structure: Structure) -> "_Outbox":
        """See `Ends`."""
        return _Outbox(self.line, self.name, topic)

    def client(self, service: str) -> "_Client":
        """See `Ends`."""
        return _Client(self.line, service)

    def server(self, service: str, apis: Apis) -> "_Server":
        """See `Ends`."""
        return _Server(self.line, service, apis)


class _Inbox:
    def __init__(self, line: Line, owner: str, topic: str, take: Take, others_only: bool) -> None:
        self.owner, self.topic, self.take, self.others_only = owner, topic, take, others_only
        self.open = False
        line.inboxes.append(self)

    def start(self) -> None:
        self.open = True

    def close(self) -> None:
        self.open = False


class _Outbox:
    def __init__(self, line: Line, owner: str, topic: str) -> None:
        self.line, self.owner, self.topic = line, owner, topic

    def send(self, message: Packed) -> None:
        self.line.deliver(self.topic, message, self.owner)


class _Client:
    def __init__(self, line: Line, service: str) -> None:
        self.line, self.service = line, service

    def call(self, api: int, parameter: Json | None = None, within: float = ANSWER_WITHIN) -> tuple[int, Json]:
        server = self.line.services.get(self.service)
        nothing: Json = {}
        return (NO_ANSWER, nothing) if server is None else server.answer(api, parameter or nothing)


class _Server:
    def __init__(self, line: Line, service: str, apis: Apis) -> None:
        self.apis = apis
        self.calls: list[int] = []
        self.line, self.service = line, service
        line.services[service] = self

    def start(self) -> None:
        """It answers from the beginning."""

    def close(self) -> None:
        self.line.services.pop(self.service, None)

    def answer(self, api: int, parameter: Json) -> tuple[int, Json]:
        self.calls.append(api)
        nothing: Json = {}
        work = self.apis.get(api)
        return (UNKNOWN_API, nothing) if work is None else work(parameter)
