"""Draws notes as a piano roll: time to the right, pitch upwards."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

from gpt2_jax.files.extras import import_extra
from gpt2_jax.tasks.music.notes import STEPS, Note

_PROMPT, _CONTINUATION = "#4477aa", "#cc6633"  # apart also for the color-blind, and in gray
_STEP_INCHES, _PITCH_INCHES = 0.045, 0.09
_LETTERS_PER_INCH = 10


def piano_roll(
    prompt: Sequence[Note], continuation: Sequence[Note], bars: Sequence[int], title: str = ""
) -> bytes:
    """Returns a PNG of both, in two colors, with a line at each bar.

    Args:
      prompt: notes that were given.
      continuation: notes that followed.
      bars: steps at which bars begin.
      title: written above.

    Raises:
      UserError: if matplotlib is not installed.
    """
    figure_module = import_extra("matplotlib.figure", extra="plots", needed_by="a piano roll")
    notes = [*prompt, *continuation]
    low = min((note.pitch for note in notes), default=60) - 2
    high = max((note.pitch for note in notes), default=72) + 2
    stop = max((note.stop for note in notes), default=STEPS)
    # Room for the legend, and no more than a wide screen shows.
    size = (2.5 + _STEP_INCHES * min(max(stop, 48), 1200), 2.5 + _PITCH_INCHES * (high - low))
    figure = figure_module.Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    for row, name, color in (
        (prompt, "prompt", _PROMPT),
        (continuation, "continuation", _CONTINUATION),
    ):
        axes.bar(
            [note.start for note in row],
            height=0.8,
            # A gap shows where a pitch is struck again.
            width=[note.length - 0.25 for note in row],
            bottom=[note.pitch - 0.4 for note in row],
            align="edge",
            color=color,
            label=f"{name}, {len(row)} notes",
        )
    for pitch in range(low, high + 1):
        if pitch % 12 in (1, 3, 6, 8, 10):
            axes.axhspan(pitch - 0.5, pitch + 0.5, color="#eeeeee", zorder=0)
    for bar in bars:
        axes.axvline(bar, color="#999999", linewidth=0.6, zorder=0)
    axes.set_xticks(bars, [str(number) for number in range(1, len(bars) + 1)])
    octaves = [pitch for pitch in range(low, high + 1) if pitch % 12 == 0]
    axes.set_yticks(octaves, [f"C{pitch // 12 - 1}" for pitch in octaves])
    axes.set(xlim=(0, stop), ylim=(low, high), xlabel="bar")
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.12), ncols=2, frameon=False)
    lines = textwrap.fill(title, int(_LETTERS_PER_INCH * size[0]))
    axes.set_title(lines, loc="left", fontsize="medium")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    return image.getvalue()
