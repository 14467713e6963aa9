"""Pictures of 4 x 4 coloured shapes, captions that name some of them, and questions about them, as rows of tokens.

A picture is 8 x 8 pixels, a patch 2 x 2: its shape says which of its pixels have its colour.
"""

import numpy as np

GRID, PATCH = 4, 2
PLACES = GRID * GRID
COLOURS = np.array([[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]], np.float32)
SHAPES = np.array([[1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 0, 0], [1, 0, 1, 0]], np.float32)
KINDS = ("colour", "shape", "count", "equal", "left")
"""Of questions: the colour or the shape at a place, how many have a colour, whether two places hold the same, whether
the only patch of one colour lies left of the only one of another."""
RELATIONAL = ("equal", "left")

PAD, IMAGE, CAPTION, NOTHING, YES, NO = range(6)
ASK = 6
COLOUR = ASK + len(KINDS)
SHAPE = COLOUR + len(COLOURS)
PLACE = SHAPE + len(SHAPES)
NUMBER = PLACE + PLACES
VOCABULARY = NUMBER + PLACES + 1
NAMED = 3
"""Patches that a caption names."""


def pictures(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours and shapes `[count, PLACES]` of random pictures."""
    return rng.integers(len(COLOURS), size=(count, PLACES)), rng.integers(len(SHAPES), size=(count, PLACES))


def drawn(colours: np.ndarray, shapes: np.ndarray, there: np.ndarray | None = None) -> np.ndarray:
    """Pixels `[N, 3, 8, 8]` from -1 to 1; what a shape leaves out is 0, and so are places where nothing is `there`
    `[N, PLACES]`."""
    patches = COLOURS[colours][..., None] * SHAPES[shapes][:, :, None]  # N, place, channel, pixel
    patches = patches if there is None else patches * there[..., None, None]
    patches = patches.reshape(len(colours), GRID, GRID, 3, PATCH, PATCH)
    return patches.transpose(0, 3, 1, 4, 2, 5).reshape(len(colours), 3, GRID * PATCH, GRID * PATCH)


def captions(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens `[N, T]`, pixels, and which tokens are part of the response: colours and shapes at places it names."""
    colours, shapes = pictures(rng, count)
    places = rng.permuted(np.tile(np.arange(PLACES), (count, 1)), axis=1)[:, :NAMED]
    said = np.stack(
        [
            PLACE + places,
            COLOUR + np.take_along_axis(colours, places, 1),
            SHAPE + np.take_along_axis(shapes, places, 1),
        ],
        -1,
    ).reshape(count, -1)
    tokens = np.concatenate([np.full((count, PLACES), IMAGE), np.full((count, 1), CAPTION), said], 1)
    response = np.zeros(tokens.shape, bool)
    response[:, PLACES + 1 :] = np.tile([False, True, True], NAMED)
    return tokens, drawn(colours, shapes), response


def questions(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tokens `[N, T]` that end with the answer, pixels, which tokens are part of the response, and kinds `[N]`."""
    colours, shapes = pictures(rng, count)
    kinds, tail = rng.integers(len(KINDS), size=count), np.zeros((count, 4), np.int64)
    for i, kind in enumerate(kinds):
        tail[i] = [ASK + kind, *_question(KINDS[kind], rng, colours[i], shapes[i])]
    tokens = np.concatenate([np.full((count, PLACES), IMAGE), tail], 1)
    response = np.zeros(tokens.shape, bool)
    response[:, -1] = True
    return tokens, drawn(colours, shapes), response, kinds


def _question(kind: str, rng: np.random.Generator, colours: np.ndarray, shapes: np.ndarray) -> tuple[int, int, int]:
    """Two words and the answer. A question about sameness or order changes the picture so that it has one."""
    if kind in ("colour", "shape"):
        at = int(rng.integers(PLACES))
        return NOTHING, PLACE + at, (COLOUR + colours[at] if kind == "colour" else SHAPE + shapes[at])
    if kind == "count":
        colour = int(rng.integers(len(COLOURS)))
        return NOTHING, COLOUR + colour, NUMBER + int((colours == colour).sum())
    if kind == "equal":
        a, b = rng.choice(PLACES, 2, replace=False)
        if rng.random() < 0.5:
            colours[b], shapes[b] = colours[a], shapes[a]
        same = colours[a] == colours[b] and shapes[a] == shapes[b]
        return PLACE + int(a), PLACE + int(b), YES if same else NO
    first, second = rng.choice(len(COLOURS), 2, replace=False)
    others = np.setdiff1d(np.arange(len(COLOURS)), [first, second])
    wrong = np.isin(colours, (first, second))
    colours[wrong] = rng.choice(others, int(wrong.sum()))
    columns = rng.choice(GRID, 2, replace=False)
    for colour, column in zip((first, second), columns, strict=True):
        colours[rng.integers(GRID) * GRID + column] = colour
    return COLOUR + int(first), COLOUR + int(second), YES if columns[0] < columns[1] else NO
