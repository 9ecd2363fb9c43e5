"""A curve, drawn with characters."""

import math
import shutil
from collections.abc import Sequence

import click

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_MARGIN = 11


def draw(name: str, points: Sequence[tuple[int, float | None]]) -> None:
    """Draw values over steps, as wide as the terminal; what is not finite is left out."""
    finite = [(x, y) for x, y in points if y is not None and math.isfinite(y)]
    if not finite:
        click.echo(f"The job has no {name} yet.")
        return
    columns, rows = max(shutil.get_terminal_size().columns - _MARGIN - 1, 20), 12
    least, greatest = min(value for _, value in finite), max(value for _, value in finite)
    first, last = min(step for step, _ in finite), max(step for step, _ in finite)
    cells = [[0] * columns for _ in range(rows)]
    for step, value in finite:
        x = round((step - first) / max(last - first, 1) * (2 * columns - 1))
        y = round((greatest - value) / ((greatest - least) or 1.0) * (4 * rows - 1))
        cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
    click.echo(f"{'':{_MARGIN}}{name}")
    for number, row in enumerate(cells):
        label = {0: f"{greatest:.4g}", rows - 1: f"{least:.4g}"}.get(number, "")
        click.echo(f"{label:>{_MARGIN - 1}} {''.join(chr(0x2800 + cell) for cell in row)}")
    click.echo(f"{'step':>{_MARGIN - 1}} {first}{last:>{columns - len(str(first))}}")
