"""Where names stand beside points of a picture so that they hide neither each other nor the points."""

from collections.abc import Sequence

WIDTH, HEIGHT, LETTER, LINE = 1050, 400, 6.6, 17
"""Pixels of a picture's inside on a screen, of a letter, of a line: near enough to keep names apart."""
POINT, BESIDE, ABOVE = 6, 7, 3
"""Half of a point; from its middle to its name, across and up."""
Side = tuple[int, int]
SIDES: tuple[Side, ...] = ((1, 1), (1, -1), (-1, 1), (-1, -1))
"""Right or left of the point, above or below it; the first that fits best is taken."""
Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""
OUTSIDE: tuple[Box, ...] = ((-1e4, -1e4, 0, 1e4), (WIDTH, -1e4, 1e4, 1e4))


def sides(points: Sequence[tuple[float, float]], names: Sequence[str]) -> list[Side]:
    """The side of each point that its name stands on; points are across and up, from 0 to 1."""
    pixels = [(across * WIDTH, up * HEIGHT) for across, up in points]
    taken: list[Box] = [(x - POINT, y - POINT, x + POINT, y + POINT) for x, y in pixels]
    found = []
    for (x, y), name in zip(pixels, names, strict=True):
        boxes = {side: _box(x, y, LETTER * len(name), side) for side in SIDES}
        best = min(SIDES, key=lambda side: sum(_shared(boxes[side], other) for other in (*taken, *OUTSIDE)))
        taken.append(boxes[best])
        found.append(best)
    return found


def _box(x: float, y: float, width: float, side: Side) -> Box:
    """What a name covers."""
    left, right = sorted((x + BESIDE * side[0], x + (BESIDE + width) * side[0]))
    bottom, top = sorted((y + ABOVE * side[1], y + (ABOVE + LINE) * side[1]))
    return left, bottom, right, top


def _shared(one: Box, other: Box) -> float:
    """Square pixels that two boxes share."""
    across, up = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0) * max(up, 0)
