"""Place the labels of a scatter plot so that they cover neither each other nor points nor lines.

All lengths are in units of the picture; y grows downwards. A rectangle is (left, top, right, bottom).
"""

import dataclasses
import math
from collections.abc import Sequence

Rectangle = tuple[float, float, float, float]
Segment = tuple[float, float, float, float]  # x1, y1, x2, y2: horizontal or vertical

DISTANCES = (0.0, 8.0, 18.0, 30.0, 44.0, 60.0)
# Right and left first: a label beside its point is easiest to assign.
DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1), (0.8, -0.7), (0.8, 0.7), (-0.8, -0.7), (-0.8, 0.7))
GAP = 4.0  # between a point's edge and its label
PASSES = 4


@dataclasses.dataclass(frozen=True)
class Point:
    """A marker at (x, y) with its radius and the size of its label."""

    x: float
    y: float
    radius: float
    width: float
    height: float

    @property
    def rectangle(self) -> Rectangle:
        """The square around the marker."""
        return self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius


@dataclasses.dataclass(frozen=True)
class Place:
    """The place of one label; if ``far``, a line leads from the point to it."""

    rectangle: Rectangle
    far: bool


def place_labels(
    points: Sequence[Point], frame: Rectangle, lines: Sequence[Segment] = (), priorities: Sequence[int] = ()
) -> list[Place | None]:
    """Return a place inside ``frame`` for the label of every point, None if there is no room.

    Greedy, then improved in a few passes: every label moves to the place with the least cost given the others. Of
    labels that still overlap, those with the higher priority are kept. Deterministic, for tens of points.

    Args:
        points: the markers and the sizes of their labels.
        frame: the area for labels.
        lines: lines that labels should not cover.
        priorities: one per point, higher first; empty for equal priorities.
    """
    places: list[Place | None] = [None] * len(points)
    markers = [point.rectangle for point in points]
    for _ in range(PASSES):
        before = list(places)
        for index, point in enumerate(points):
            others = [place.rectangle for other, place in enumerate(places) if place and other != index]
            costs = {option: _cost(option, point, others, markers, lines) for option in _options(point, frame)}
            places[index] = min(costs, key=lambda option: costs[option])
        if places == before:
            break
    return _without_overlaps(places, priorities or [0] * len(points))


def overlap(first: Rectangle, second: Rectangle) -> float:
    """Return the common area of two rectangles."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0.0) * max(height, 0.0)


def _without_overlaps(places: Sequence[Place | None], priorities: Sequence[int]) -> list[Place | None]:
    kept: dict[int, Place] = {}
    for index in sorted(range(len(places)), key=lambda index: -priorities[index]):
        place = places[index]
        if place and not any(overlap(place.rectangle, other.rectangle) for other in kept.values()):
            kept[index] = place
    return [kept.get(index) for index in range(len(places))]


def _options(point: Point, frame: Rectangle) -> list[Place]:
    options = []
    for distance in DISTANCES:
        for right, down in DIRECTIONS:
            reach = point.radius + GAP + distance
            x = point.x + right * reach + (right / abs(right) * point.width / 2 if right else 0)
            y = point.y + down * reach + (down / abs(down) * point.height / 2 if down and not right else 0)
            left = min(max(x - point.width / 2, frame[0]), frame[2] - point.width)
            top = min(max(y - point.height / 2, frame[1]), frame[3] - point.height)
            options.append(Place((left, top, left + point.width, top + point.height), distance > DISTANCES[1]))
    return options


def _cost(
    place: Place, point: Point, others: Sequence[Rectangle], markers: Sequence[Rectangle], lines: Sequence[Segment]
) -> float:
    area = point.width * point.height
    covered = sum(overlap(place.rectangle, other) for other in others)
    hidden = sum(overlap(place.rectangle, marker) for marker in markers)
    crossed = sum(overlap(place.rectangle, _widened(line)) > 0 for line in lines)
    middle = (place.rectangle[0] + place.rectangle[2]) / 2, (place.rectangle[1] + place.rectangle[3]) / 2
    nearest = (
        min(max(point.x, place.rectangle[0]), place.rectangle[2]),
        min(max(point.y, place.rectangle[1]), place.rectangle[3]),
    )
    distance = math.dist(nearest, (point.x, point.y))
    on_the_right = middle[0] >= point.x
    touched = 200 * (covered > 0) + 100 * (hidden > 0)
    return touched + 1000 * (covered + hidden) / area + 30 * crossed + distance + 4 * place.far - 2 * on_the_right


def _widened(line: Segment) -> Rectangle:
    x1, y1, x2, y2 = line
    return min(x1, x2) - 1, min(y1, y2) - 1, max(x1, x2) + 1, max(y1, y2) + 1
