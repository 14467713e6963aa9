"""YAML files from people's hands: nothing in them is dropped, guessed or expanded without a word.

A key that is given twice, an alias, a file that is no regular one or too large are errors; those within a file name its
line. So is what other readers take for a date or for a number in another base (1:30, 010, 0x10, 1_000) without quotes:
ROS's own would read another value than this one.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from sim.errors import InputError
from sim.reading import read_text

LARGEST = 1 << 18
"""No file is larger, bytes: one of a thousand parameters has 50 kB."""
DEEPEST = 40
"""A document is nested; a course is 6 deep."""
MOST_WRITTEN, MOST_NODES = 10_000, 100_000
"""Of a document as it stands, so that it is read or refused within a second or so, and with its aliases written out; a
course of a hundred poles has 2,000."""


class StrictLoader(yaml.SafeLoader):
    """YAML's safe loader without aliases, merges, double keys, deep nesting, dates and numbers in base 60 or 8."""

    aliases, depth, written = False, 0, 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Aliases are refused: nested ones grow to any size. So is what is nested too deeply to be meant."""
        problem, event = "", self.peek_event()
        if isinstance(event, yaml.AliasEvent) and not self.aliases:
            problem = f"the alias '*{event.anchor}' is not allowed"
        elif self.depth >= DEEPEST:
            problem = f"it is nested more than {DEEPEST} deep"
        elif self.written >= MOST_WRITTEN:
            problem = f"it has more than {MOST_WRITTEN} values"
        if problem:
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        self.depth, self.written = self.depth + 1, self.written + 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A key that is given twice is an error, and not the last one winning."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            merge = key.tag == "tag:yaml.org,2002:merge" and not self.aliases
            if key.value in seen or merge:
                problem = f"the key '{key.value}' is {'not allowed' if merge else 'given twice'}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        for key, value in node.value:
            self._check_plain(value, f" of '{key.value}'" if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep)

    def construct_sequence(self, node: yaml.SequenceNode, deep: bool = False) -> list[Any]:
        """Its items are held to what a mapping's values are."""
        for item in node.value:
            self._check_plain(item, "")
        return super().construct_sequence(node, deep)

    def _check_plain(self, node: yaml.Node, whose: str) -> None:
        """A text without quotes that others take for a date or number is an error."""
        if not isinstance(node, yaml.ScalarNode) or node.style is not None or node.tag != _TEXT:
            return
        others = yaml.SafeLoader.yaml_implicit_resolvers.get(node.value[:1], [])
        guessed = any(tag.rsplit(":", 1)[1] in _GUESSED and pattern.match(node.value) for tag, pattern in others)
        if guessed or re.fullmatch(r"[-+]?0o[0-7]+", node.value):
            problem = f"the value '{node.value}'{whose} could be a date or number: quotes make it a text"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


class BoundedLoader(StrictLoader):
    """A strict loader with aliases, as long as what they stand for stays small when it is written out."""

    aliases = True

    def get_single_node(self) -> Any:
        """The document; an error where it grows too large."""
        node = super().get_single_node()
        if node is not None and _size(node, {}) > MOST_NODES:
            raise yaml.composer.ComposerError(None, None, "its aliases grow too large", node.start_mark)
        return node


def _size(node: Any, known: dict[int, float]) -> float:
    """Nodes below one, aliases written out; infinite where it holds itself. `known` has those already counted."""
    if id(node) not in known:
        known[id(node)] = float("inf")
        inner = node.value if isinstance(node.value, list) else []
        parts = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1.0 + sum(_size(part, known) for part in parts)
    return known[id(node)]


_GUESSED, _TEXT = ("timestamp", "int", "float"), "tag:yaml.org,2002:str"
StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rsplit(":", 1)[1] not in _GUESSED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
StrictLoader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789"))
StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$|[-+]?[0-9]+[eE][-+]?[0-9]+$"
        r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def loads(text: str, where: str, aliases: bool = False) -> Any:
    """What a YAML text says that came from `where`; with `aliases` as `BoundedLoader` allows them.

    Raises:
      InputError: no YAML, or not a strict one; one line with the line's number.
    """
    try:
        return yaml.load(text, Loader=BoundedLoader if aliases else StrictLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise InputError(f"{where} is not valid YAML{line}: {reason}") from error


def read(path: Path) -> Any:
    """What a YAML file says.

    Raises:
      InputError: it cannot be read, is no regular file or too large, or `loads` refuses it.
    """
    return loads(read_text(path, LARGEST), str(path))
