"""Grids with few coloured shapes on them, captions that list them, questions about them, and pairs of captions of which
one names what is not there. Words and pixels are those of `llava_kd.picture_world`.
"""

from dataclasses import dataclass

import numpy as np

from distill.methods.llava_kd.picture_world import (
    ASK,
    CAPTION,
    COLOUR,
    COLOURS,
    IMAGE,
    NO,
    NOTHING,
    NUMBER,
    PAD,
    PLACE,
    PLACES,
    SHAPE,
    SHAPES,
    YES,
    drawn,
)

TASKS = ("count", "exists", "colour", "compare")
"""How many have a colour, whether a shape is there, the colour at a place, whether one colour has more than another."""
END = NOTHING
"""Of a caption."""
MOST = 3
"""Objects of a scene; there is at least one."""
LENGTH = PLACES + 1 + 2 * (MOST + 1) + 1
"""Tokens of a caption's row: one object more may be named than there are."""
Object = tuple[int, int]
"""Colour and shape."""
HABIT = 0, 2
"""Many captions that name something of the first colour name the same shape in the second as well, there or not: so
models come to see what most often goes together."""


@dataclass(frozen=True)
class Scenes:
    """Pictures, and what is on them."""

    colours: np.ndarray
    shapes: np.ndarray
    there: np.ndarray
    """Where something is, `[N, PLACES]` as the others."""

    @property
    def images(self) -> np.ndarray:
        """Pixels `[N, 3, 8, 8]`."""
        return drawn(self.colours, self.shapes, self.there)

    def objects(self, i: int) -> list[Object]:
        """What is on a picture, in the order of reading."""
        at = np.flatnonzero(self.there[i])
        return [(int(c), int(s)) for c, s in zip(self.colours[i, at], self.shapes[i, at], strict=True)]

    def __len__(self) -> int:
        return len(self.there)


def scenes(rng: np.random.Generator, count: int) -> Scenes:
    """Random ones, with 1 to `MOST` objects."""
    number = rng.integers(1, MOST + 1, size=(count, 1))
    there = rng.permuted(np.tile(np.arange(PLACES), (count, 1)), axis=1) < number
    return Scenes(rng.integers(len(COLOURS), size=there.shape), rng.integers(len(SHAPES), size=there.shape), there)


def said(named: list[list[Object]]) -> tuple[np.ndarray, np.ndarray]:
    """Captions that name those objects: tokens `[N, LENGTH]`, and which are part of the response."""
    tokens, response = np.full((len(named), LENGTH), PAD), np.zeros((len(named), LENGTH), bool)
    tokens[:, :PLACES], tokens[:, PLACES] = IMAGE, CAPTION
    for row, asked, objects in zip(tokens, response, named, strict=True):
        words = [word for colour, shape in objects for word in (COLOUR + colour, SHAPE + shape)] + [END]
        row[PLACES + 1 : PLACES + 1 + len(words)] = words
        asked[PLACES + 1 : PLACES + 1 + len(words)] = True
    return tokens, response


def heard(words: np.ndarray) -> list[list[Object]]:
    """The objects that captions `[N, words]` name, up to their ends: a colour and a shape after it."""
    found: list[list[Object]] = []
    for row in words:
        upto = row[: int((row == END).argmax()) if (row == END).any() else len(row)]
        found.append([
            (int(a) - COLOUR, int(b) - SHAPE)
            for a, b in zip(upto[:-1], upto[1:], strict=True)
            if COLOUR <= a < COLOUR + len(COLOURS) and SHAPE <= b < SHAPE + len(SHAPES)
        ])  # fmt: skip
    return found


def habitual(objects: list[Object]) -> list[Object]:
    """The same with what habit puts beside one of them; as they are where nothing of that colour lacks it."""
    for at, (colour, shape) in enumerate(objects):
        beside = HABIT[1], shape
        if colour == HABIT[0] and beside not in objects:
            return [*objects[: at + 1], beside, *objects[at + 1 :]]
    return objects


def wronged(rng: np.random.Generator, objects: list[Object]) -> list[Object]:
    """The same with one object that is not there: by habit or put in anywhere, or one of them with another colour or
    shape."""
    if rng.random() < 0.5:
        by_habit, at = habitual(objects), int(rng.integers(len(objects) + 1))
        return by_habit if by_habit != objects else [*objects[:at], _absent(rng, objects), *objects[at:]]
    at = int(rng.integers(len(objects)))
    colour, shape = objects[at]
    near = [(c, shape) for c in range(len(COLOURS))] + [(colour, s) for s in range(len(SHAPES))]
    others = [other for other in near if other not in objects]
    changed = others[int(rng.integers(len(others)))] if others else _absent(rng, objects)
    return [*objects[:at], changed, *objects[at + 1 :]]


def _absent(rng: np.random.Generator, objects: list[Object]) -> Object:
    while True:
        found = int(rng.integers(len(COLOURS))), int(rng.integers(len(SHAPES)))
        if found not in objects:
            return found


def captions(
    rng: np.random.Generator, made: Scenes, wrong: float = 0.0, habit: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, pixels, and which tokens are part of the response; a share of `wrong` captions name an absent object, and
    of the others a share of `habit` what goes with what is there."""
    named: list[list[Object]] = []
    for i in range(len(made)):
        objects, (first, second) = made.objects(i), rng.random(2)
        named.append(wronged(rng, objects) if first < wrong else habitual(objects) if second < habit else objects)
    tokens, response = said(named)
    return tokens, made.images, response


def choices(rng: np.random.Generator, made: Scenes) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """Right captions, captions that name an absent object, pixels, and the responses of both."""
    right = [made.objects(i) for i in range(len(made))]
    (better, first), (worse, second) = said(right), said([wronged(rng, objects) for objects in right])
    return better, worse, made.images, [first, second]


def questions(
    rng: np.random.Generator, made: Scenes, wrong: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tokens `[N, PLACES + 4]` that end with the answer, pixels, which tokens are part of the response, tasks `[N]`;
    a share of `wrong` answers is another question's of the same task."""
    tasks = rng.integers(len(TASKS), size=len(made))
    tail = np.array([[ASK + task, *_question(TASKS[task], rng, made, i)] for i, task in enumerate(tasks)])
    given = tail.copy()
    for task in range(len(TASKS)):
        at = np.flatnonzero((tasks == task) & (rng.random(len(made)) < wrong))
        given[at, -1] = tail[rng.permutation(np.flatnonzero(tasks == task))[: len(at)], -1]
    tokens = np.concatenate([np.full((len(made), PLACES), IMAGE), given], 1)
    response = np.zeros(tokens.shape, bool)
    response[:, -1] = True
    return tokens, made.images, response, tasks


def _question(task: str, rng: np.random.Generator, made: Scenes, i: int) -> tuple[int, int, int]:
    """Two words and the answer."""
    objects = made.objects(i)
    colours = [colour for colour, _ in objects]
    first, second = (int(c) for c in rng.choice(len(COLOURS), 2, replace=False))
    if rng.random() < 0.7:  # most often about what is there
        first = colours[int(rng.integers(len(colours)))]
        second = (first + 1 + int(rng.integers(len(COLOURS) - 1))) % len(COLOURS)
    if task == "count":
        return NOTHING, COLOUR + first, NUMBER + colours.count(first)
    if task == "exists":
        shape = int(rng.integers(len(SHAPES)))
        return NOTHING, SHAPE + shape, YES if shape in [s for _, s in objects] else NO
    if task == "colour":
        at = int(rng.choice(np.flatnonzero(made.there[i])))
        return NOTHING, PLACE + at, COLOUR + int(made.colours[i, at])
    if rng.random() < 0.5:
        first, second = second, first
    return COLOUR + first, COLOUR + second, YES if colours.count(first) > colours.count(second) else NO


def as_long(table: dict[str, np.ndarray], length: int, pad: int = PAD) -> dict[str, np.ndarray]:
    """Rows with padding to so many tokens, so that they go with longer ones in a batch."""
    more = length - table["tokens"].shape[-1]
    widths = {"tokens": pad, "target": pad, "mask": False}
    return {
        name: np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, more)], constant_values=widths[name])
        if name in widths else values
        for name, values in table.items()
    }  # fmt: skip


def together(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows of equal length as one table."""
    return {name: np.concatenate([first[name], second[name]]) for name in first}
