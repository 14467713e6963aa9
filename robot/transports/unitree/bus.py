"""DDS as Unitree's robots use it: one participant in a domain on one network interface, its topics, and calls of
services. `cyclonedds` is imported where a bus is made."""

import functools
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast
from xml.sax.saxutils import quoteattr

from robot.options import LAST_DOMAIN
from robot.transports.unitree.layout import Packed, Structure
from robot.transports.unitree.messages import UNKNOWN_API, dds_message, dds_type
from sim.errors import InputError

ANSWER_WITHIN = 2.0
"""A service has so long to answer a call, s. By hand; unitree_sdk2's own clients wait for 5 s."""
NO_ANSWER = 3104
"""The client's own code for a service that did not answer (unitree_sdk2)."""

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Received:
    """A message with what DDS says of it."""

    message: Packed
    sent: int
    """When it was written, ns on its sender's clock."""
    sender: bytes
    """Its writer's identity."""


Take = Callable[[Received], None]
"""What becomes of a message."""
Apis = Mapping[int, Callable[[Json], tuple[int, Json]]]
"""The number of a call -> its code and data, from its parameter."""


class Ends(Protocol):
    """What a robot or a control loop needs of a bus. `Bus` is DDS, `robot.transports.unitree.line` one process."""

    domain: int
    interface: str

    def inbox(
        self, topic: str, structure: Structure, take: Take, newest: bool = False, others_only: bool = False
    ) -> "Ending":
        """Messages of a topic, handed to `take` from `start` on."""
        ...

    def outbox(self, topic: str, structure: Structure) -> "Sending":
        """Messages of a topic, sent."""
        ...

    def client(self, service: str) -> "Calling":
        """Calls a service."""
        ...

    def server(self, service: str, apis: Apis) -> "Serving":
        """Answers the calls of a service."""
        ...


class Ending(Protocol):
    """Something that begins and ends."""

    def start(self) -> None:
        """Begins."""
        ...

    def close(self) -> None:
        """Ends."""
        ...


class Serving(Ending, Protocol):
    """A service."""

    calls: list[int]


class Sending(Protocol):
    """Where messages go."""

    def send(self, message: Packed) -> None:
        """Sends a message, or drops it."""
        ...


class Calling(Protocol):
    """Who calls a service."""

    def call(self, api: int, parameter: Json | None = None, within: float = ANSWER_WITHIN) -> tuple[int, Json]:
        """Code and data of the answer; `NO_ANSWER` where none came."""
        ...


_DOMAINS: dict[int, tuple[str, Any]] = {}
"""Domains of this process, with their interfaces: DDS makes each once."""


class Bus:
    """A participant in a domain."""

    def __init__(self, domain: int, interface: str) -> None:
        """`interface` is the network interface that the robot is on, `lo` for a simulated one.

        Raises:
          InputError: cyclonedds is not installed, there is no such interface, or DDS refuses the domain.
        """
        known = [name for _, name in socket.if_nameindex()]
        if interface not in known:
            raise InputError(f"there is no network interface '{interface[:40]}': there are {', '.join(known)}")
        if not 0 <= domain <= LAST_DOMAIN:
            raise InputError(f"a DDS domain is a number from 0 to {LAST_DOMAIN}, got {domain}")
        try:
            self._domain_module = import_module("cyclonedds.domain")
        except ModuleNotFoundError as error:
            raise InputError("Unitree's messages need cyclonedds: pip install 'barkour[unitree]'") from error
        self._topics, self._readers, self._writers, self._core = (
            import_module(f"cyclonedds.{name}") for name in ("topic", "sub", "pub", "core")
        )
        self.domain, self.interface = domain, interface
        try:
            if domain not in _DOMAINS:
                _DOMAINS[domain] = interface, self._domain_module.Domain(domain, configuration(interface))
            if _DOMAINS[domain][0] != interface:
                raise InputError(f"this process is in DDS domain {domain} on {_DOMAINS[domain][0]} already")
            self.participant = self._domain_module.DomainParticipant(domain)
        except self._core.DDSException as error:
            raise InputError(f"DDS does not begin in domain {domain} on {interface}: {error.msg}") from error

    def reader(self, topic: str, kind: Any, others_only: bool = False) -> Any:
        """A DDS reader that keeps what comes in until it is taken, a few messages; `others_only`: of other programs."""
        qos = import_module("cyclonedds.qos")
        policies = [qos.Policy.History.KeepLast(8)]
        if others_only:
            policies.append(qos.Policy.IgnoreLocal.Participant)
        kept = qos.Qos(*policies)
        return self._readers.DataReader(self.participant, self._topics.Topic(self.participant, topic, kind), kept)

    def writer(self, topic: str, kind: Any) -> Any:
        """A DDS writer; reliable, as unitree_sdk2's are, but never waiting: what is late is not worth sending."""
        qos = import_module("cyclonedds.qos")
        policy = qos.Policy
        asked = qos.Qos(policy.Reliability.Reliable(0), policy.History.KeepLast(1))
        return self._writers.DataWriter(self.participant, self._topics.Topic(self.participant, topic, kind), asked)

    def inbox(
        self, topic: str, structure: Structure, take: "Take", newest: bool = False, others_only: bool = False
    ) -> "Inbox":
        """See `Inbox`."""
        return Inbox(self, topic, structure, take, newest, others_only)

    def outbox(self, topic: str, structure: Structure) -> "Outbox":
        """See `Outbox`."""
        return Outbox(self, topic, structure)

    def client(self, service: str) -> "Client":
        """See `Client`."""
        return Client(self, service)

    def server(self, service: str, apis: "Apis") -> "Server":
        """See `Server`."""
        return Server(self, service, apis)

    def close(self) -> None:
        """Leaves the domain."""
        self.participant = None


def configuration(interface: str) -> str:
    """CycloneDDS's configuration for one interface. A CYCLONEDDS_URI of the environment has no effect beside it."""
    return (
        '<CycloneDDS><Domain Id="any"><General><Interfaces>'
        f'<NetworkInterface name={quoteattr(interface)} priority="default" multicast="default"/>'
        "</Interfaces></General></Domain></CycloneDDS>"
    )


class Worker:
    """Something that goes on in a thread of its own until it is closed."""

    def __init__(self, name: str) -> None:
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def close(self) -> None:
        """Ends."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(1.0)


class Inbox(Worker):
    """Messages of one topic, handed on by a thread as they come in."""

    def __init__(
        self,
        bus: Bus,
        topic: str,
        structure: Structure,
        take: Callable[[Received], None],
        newest: bool = False,
        others_only: bool = False,
    ) -> None:
        """`take` is called in the thread; of messages that wait together only the last where only the `newest` counts.
        `others_only` leaves out what this program sends itself."""
        super().__init__(topic)
        self.bus, self.take, self.newest = bus, take, newest
        self.reader = bus.reader(topic, dds_type(structure), others_only)
        core, util = import_module("cyclonedds.core"), import_module("cyclonedds.util")
        self._wait = core.WaitSet(bus.participant)
        self._wait.attach(
            core.ReadCondition(self.reader, core.ViewState.Any | core.InstanceState.Any | core.SampleState.Any)
        )
        self._patience = util.duration(milliseconds=100)
        self._identities: dict[int, bytes] = {}

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                if self._wait.wait(self._patience) == 0:
                    continue
                samples = self.reader.take(64)
            except Exception:  # what is no such message was taken off by DDS; the next may be one
                time.sleep(0.001)
                continue
            valid = [sample for sample in samples if getattr(sample, "packed", None) is not None]
            for sample in valid[-1:] if self.newest else valid:
                info = sample.sample_info
                self.take(Received(sample.packed, int(info.source_timestamp), self._identity(info.publication_handle)))

    def _identity(self, handle: int) -> bytes:
        found = self._identities.get(handle)
        if found is None:
            data = self.reader.get_matched_publication_data(handle)
            found = b"" if data is None else bytes(data.key.bytes)
            if found:
                self._identities[handle] = found
        return found


class Outbox:
    """Messages of one topic, sent."""

    def __init__(self, bus: Bus, topic: str, structure: Structure) -> None:
        self.writer = bus.writer(topic, dds_type(structure))
        self.identity = bytes(self.writer.get_guid().bytes)
        """Under which others know it."""

    def send(self, message: Packed) -> None:
        """Sends a message, or drops it where DDS cannot take it now."""
        try:
            self.writer.write(dds_message(message))
        except import_module("cyclonedds.core").DDSException:
            return


# --- services ---------------------------------------------------------------------------------------------------------


@functools.cache
def service_types() -> tuple[Any, Any]:
    """DDS types of a call and of its answer (unitree_api)."""
    idl, annotations, types = (import_module(f"cyclonedds.idl{name}") for name in ("", ".annotations", ".types"))

    def struct(name: str, **fields: Any) -> Any:
        from dataclasses import dataclass as plain

        made = idl.make_idl_struct(f"{name}_", f"unitree_api.msg.dds_.{name}_", fields)
        return plain(annotations.final(annotations.autoid("sequential")(made)))

    identity = struct("RequestIdentity", id=types.int64, api_id=types.int64)
    lease = struct("RequestLease", id=types.int64)
    policy = struct("RequestPolicy", priority=types.int32, noreply=bool)
    status = struct("ResponseStatus", code=types.int32)
    head = struct("RequestHeader", identity=identity, lease=lease, policy=policy)
    answer = struct("ResponseHeader", identity=identity, status=status)
    request = struct("Request", header=head, parameter=str, binary=types.sequence[types.uint8])
    response = struct("Response", header=answer, data=str, binary=types.sequence[types.uint8])
    for made, parts in ((request, {"head": head, "identity": identity, "lease": lease, "policy": policy}),
                        (response, {"head": answer, "identity": identity, "status": status})):  # fmt: skip
        made.parts = parts
    return request, response


class Client:
    """Calls a service of the robot."""

    def __init__(self, bus: Bus, service: str) -> None:
        request, response = service_types()
        self._request = request
        self._writer = bus.writer(f"rt/api/{service}/request", request)
        self._reader = bus.reader(f"rt/api/{service}/response", response)

    def call(self, api: int, parameter: Json | None = None, within: float = ANSWER_WITHIN) -> tuple[int, Json]:
        """Code and data of the answer; `NO_ANSWER` where none came `within` so long, s."""
        parts, number = self._request.parts, random.getrandbits(62)
        header = parts["head"](
            identity=parts["identity"](id=number, api_id=api),
            lease=parts["lease"](id=0),
            policy=parts["policy"](priority=0, noreply=False),
        )
        until = time.monotonic() + within
        while time.monotonic() < until and not self._writer.get_matched_subscriptions():
            time.sleep(0.01)
        self._writer.write(self._request(header=header, parameter=json.dumps(dict(parameter or {})), binary=[]))
        while time.monotonic() < until:
            for answer in self._reader.take(16):
                head = getattr(answer, "header", None)
                if head is not None and head.identity.id == number:
                    return int(head.status.code), _object(answer.data)
            time.sleep(0.005)
        return NO_ANSWER, {}


def _object(text: str) -> Json:
    """A JSON object; empty where it is none."""
    try:
        found: Any = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return cast(Json, found) if isinstance(found, dict) else {}


class Server(Worker):
    """Answers the calls of a service."""

    def __init__(self, bus: Bus, service: str, apis: Mapping[int, Callable[[Json], tuple[int, Json]]]) -> None:
        """`apis`: the number of a call -> its code and data, from its parameter."""
        super().__init__(service)
        request, response = service_types()
        self.apis, self._response = apis, response
        self._reader = bus.reader(f"rt/api/{service}/request", request)
        self._writer = bus.writer(f"rt/api/{service}/response", response)
        self.calls: list[int] = []
        """The numbers of the calls so far."""
        self.start()

    def _run(self) -> None:
        parts = self._response.parts
        while not self._ending.wait(0.01):
            for asked in self._reader.take(16):
                if getattr(asked, "header", None) is None:
                    continue
                identity = asked.header.identity
                self.calls.append(int(identity.api_id))
                work = self.apis.get(int(identity.api_id))
                nothing: Json = {}
                code, data = work(_object(asked.parameter)) if work is not None else (UNKNOWN_API, nothing)
                if asked.header.policy.noreply:
                    continue
                head = parts["head"](
                    identity=parts["identity"](id=identity.id, api_id=identity.api_id),
                    status=parts["status"](code=code),
                )
                self._writer.write(self._response(header=head, data=json.dumps(dict(data)), binary=[]))
