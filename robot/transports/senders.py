"""Who sends on a topic: what only one program may send is claimed by it, and a second sender is noticed.

A topic is claimed on this computer by an abstract Unix socket, which ends with its process, however that ends. Senders
on other computers are known by the identity that the middleware gives every message's publisher.
"""

import hashlib
import socket
from collections import deque
from collections.abc import Callable
from enum import Enum

from robot.loop.controller import CONTESTED
from robot.loop.transport import NEVER, NS
from sim.errors import InputError

ELSEWHERE = "end it, or choose another domain (--domain, ROS_DOMAIN_ID) or namespace"
"""What helps against another program like this one."""
SILENT = 0.5
"""A sender that was silent for so long, s, may have been started anew: twenty-five commands, or 125 readings."""
REMEMBERED = 16
"""So many senders that were replaced are known again."""


class Heard(Enum):
    """Whose message came in."""

    KNOWN = 0
    """The one's that sends on this topic."""
    CHANGED = 1
    """Another one's, after the one before it fell silent: a program that was started anew."""
    SECOND = 2
    """Another one's, while the first goes on."""


class Senders:
    """The senders of one topic, by their identities. Used by one thread."""

    def __init__(self, own: bytes | None = None) -> None:
        """`own` is the identity of this program's own publisher, on a topic that it alone may send."""
        self._own, self._current, self._heard = own, own, NEVER
        self._replaced: deque[bytes] = deque(maxlen=REMEMBERED)
        self._second = NEVER

    def hear(self, identity: bytes | None, now: int, count: Callable[[], int]) -> Heard:
        """A message of `identity` came in at `now` (ns).

        Where the middleware names nobody (`identity` is None), `count` says how many publishers it knows.
        """
        if identity is None:
            if count() <= 1:
                return Heard.KNOWN
            self._second = now
            return Heard.SECOND
        if identity == self._current or self._current is None:
            self._current, self._heard = identity, now
            return Heard.KNOWN
        goes_on = self._own is not None or now - self._heard <= SILENT * NS
        if goes_on or identity in self._replaced:
            self._second = now
            return Heard.SECOND
        self._replaced.append(self._current)
        self._current, self._heard = identity, now
        return Heard.CHANGED

    def contested(self, now: int) -> bool:
        """Whether a second sender was heard of late."""
        return now - self._second <= CONTESTED * NS


class Claim:
    """The right to send alone on a topic in a ROS domain of this computer, until `close` or the end of the process."""

    def __init__(self, domain: int, topic: str) -> None:
        """`topic` is its full name, such as `/robot1/joint_commands`.

        Raises:
          InputError: another program has it.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            digest = hashlib.sha256(topic.encode()).hexdigest()[:32]  # such names have 107 bytes at most
            self._socket.bind(f"\0barkour/{domain}/{digest}".encode())
        except OSError as error:
            self._socket.close()
            raise InputError(
                f"another program of this computer sends {topic} in the ROS domain {domain}: {ELSEWHERE}"
            ) from error

    def close(self) -> None:
        """Leaves it to others."""
        self._socket.close()


def check_free(domain: int, topics: tuple[str, ...]) -> None:
    """Raises `InputError` where a program of this computer has claimed one of the `topics` (full names)."""
    for topic in topics:
        Claim(domain, topic).close()
