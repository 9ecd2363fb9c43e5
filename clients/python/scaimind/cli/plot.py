"""A curve, drawn with characters."""

import math
import shutil
from collections.abc import Sequence

import click

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def draw(points: Sequence[tuple[int, float]]) -> None:
    """Draw values over steps, as wide as the terminal; what is not finite is left out."""
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    if not finite:
        click.echo("There is no loss yet.")
        return
    columns, rows = max(shutil.get_terminal_size().columns - 12, 20), 12
    least, greatest = min(value for _, value in finite), max(value for _, value in finite)
    first, last = finite[0][0], finite[-1][0]
    cells = [[0] * columns for _ in range(rows)]
    for step, value in finite:
        x = round((step - first) / max(last - first, 1) * (2 * columns - 1))
        y = round((greatest - value) / ((greatest - least) or 1.0) * (4 * rows - 1))
        cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
    for number, row in enumerate(cells):
        label = {0: f"{greatest:.4g}", rows - 1: f"{least:.4g}"}.get(number, "")
        click.echo(f"{label:>10} {''.join(chr(0x2800 + cell) for cell in row)}")
    click.echo(f"{'step':>10} {first}{last:>{columns - len(str(first))}}")
