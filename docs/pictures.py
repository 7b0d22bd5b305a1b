"""Draw the circuits of the pages as SVG, from the circuits themselves: ``make pictures``.

Axes are lines from left to right, a gate is a box on each axis that it acts on. What is drawn is
what `Circuit` holds, so that no picture shows another circuit than the text beside it computes.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from baselines.quanta import Circuit, Gate

FOLDER = Path(__file__).parent / "pictures"
STEP, LINE, BOX, LEFT, TOP = 64, 52, 30, 56, 34

PICTURES: dict[str, Callable[[], Circuit]] = {
    "all-pairs": lambda: Circuit.all_pairs((16, 8, 8, 4)),
    "rectangular": lambda: Circuit.all_pairs((9, 8, 8), first_out=3),
    "chain": lambda: Circuit((4, 4, 4), [Gate((0, 1)), Gate((1, 2)), Gate((2,))]),
}
"""The circuits by the name of their file."""


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{text}</text>'


def drawing(circuit: Circuit) -> str:
    """A circuit as an SVG image.

    Args:
        circuit: any circuit; gates of trained, given and fixed tensors look alike.

    Returns:
        The image's text. Lines are labelled with the sizes of their axes, anew where a gate changes
        one; above each gate stand its number and the shape of its matrix.
    """
    count, steps = len(circuit.sizes), circuit.steps
    width, height = 2 * LEFT + STEP * len(steps), TOP + LINE * (count - 1) + 40
    heights = [TOP + 20 + LINE * axis for axis in range(count)]
    parts = [
        f'<line x1="{LEFT}" y1="{y}" x2="{width - LEFT}" y2="{y}"/>'
        f"{_text(LEFT - 8, y + 5, str(size), 'end')}"
        for y, size in zip(heights, circuit.sizes, strict=True)
    ]
    sizes = list(circuit.sizes)
    for number, step in enumerate(steps):
        x = LEFT + STEP * (number + 0.5)
        places = sorted(heights[axis] for axis in step.axes)
        # A gate on axes that are no neighbours passes over those between.
        parts += [
            f'<line class="gate" x1="{x:g}" y1="{a}" x2="{x:g}" y2="{b}"/>'
            for a, b in pairwise(places)
        ]
        parts += [
            f'<rect x="{x - BOX / 2:g}" y="{y - BOX / 2:g}" width="{BOX}" height="{BOX}" rx="5"/>'
            f"{_text(x, y + 5, str(number))}"
            for y in places
        ]
        parts.append(_text(x, 16, f"{step.fan_out}×{step.fan_in}"))
        for axis, size in zip(step.axes, step.out_sizes, strict=True):
            if sizes[axis] != size and number < len(steps) - 1:
                parts.append(_text(x + STEP / 2, heights[axis] - 6, str(size)))
            sizes[axis] = size
    parts += [
        _text(width - LEFT + 8, y + 5, str(size), "start")
        for y, size in zip(heights, circuit.out_sizes, strict=True)
    ]
    style = (
        "text{font:13px sans-serif;fill:#222}line{stroke:#555;stroke-width:1.5}"
        ".gate{stroke:#3f51b5;stroke-width:3}rect{fill:#e8eaf6;stroke:#3f51b5;stroke-width:2}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">\n<style>{style}</style>\n'
        f'<rect width="{width}" height="{height}" style="fill:#fff;stroke:none"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, make in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(drawing(make()), encoding="utf-8")
