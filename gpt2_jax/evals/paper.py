"""Compares results with the GPT-2 paper's zero-shot table (Radford et al. 2019, table 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

SIZES = ("124M", "355M", "774M", "1558M")
"""The actual numbers of parameters; the paper says 117M, 345M, 762M and 1542M."""


class PaperRow(NamedTuple):
    """Holds a column of the paper's table and the metric to compare it with.

    Attributes:
      label: the heading of the column.
      task, metric: the number of ours that it is compared with.
      figures: the paper's numbers for the four sizes, as printed: accuracies are in percent.
    """

    label: str
    task: str
    metric: str
    figures: tuple[float, float, float, float]


TABLE = (
    PaperRow("LAMBADA (PPL)", "lambada_gpt2", "perplexity", (35.13, 15.60, 10.87, 8.63)),
    PaperRow("LAMBADA (ACC)", "lambada_gpt2", "acc", (45.99, 55.48, 60.12, 63.24)),
    PaperRow("LAMBADA (ACC)", "lambada_gpt2", "acc_filtered", (45.99, 55.48, 60.12, 63.24)),
    PaperRow("CBT-CN (ACC)", "cbt_cn", "acc", (87.65, 92.35, 93.45, 93.30)),
    PaperRow("CBT-NE (ACC)", "cbt_ne", "acc", (83.4, 87.1, 88.0, 89.05)),
    PaperRow("WikiText2 (PPL)", "wikitext2", "word_perplexity", (29.41, 22.76, 19.93, 18.34)),
    PaperRow("WikiText2 (PPL)", "wikitext2", "token_perplexity", (29.41, 22.76, 19.93, 18.34)),
    PaperRow("PTB (PPL)", "ptb", "word_perplexity", (65.85, 47.33, 40.31, 35.76)),
    PaperRow("enwik8 (BPB)", "enwik8", "bits_per_byte", (1.16, 1.01, 0.97, 0.93)),
    PaperRow("text8 (BPC)", "text8", "bits_per_byte", (1.17, 1.06, 1.02, 0.98)),
    PaperRow("WikiText103 (PPL)", "wikitext103", "word_perplexity", (37.50, 26.37, 22.05, 17.48)),
    PaperRow("1BW (PPL)", "lm1b", "word_perplexity", (75.20, 55.72, 44.575, 42.16)),
)

NOTES = """\
The paper's figures are from Radford et al., Language Models are Unsupervised Multitask Learners
(2019), table 3. The paper describes neither its detokenizers and stop words, nor how it splits
texts into windows, nor which parts of enwik8, text8 and 1BW it measures: this program makes its
own choices, and figures may differ for that reason alone. If two rows are shown beside one figure,
it is not known which of them the paper measured. This program's authors have not run it on the
released weights."""


def table(results: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Returns the lines of a table: each available number beside the paper's four."""
    head = f"{'':18}{'metric':17}{'this model':>12}   " + "".join(f"{size:>8}" for size in SIZES)
    lines = [head + "   (paper)"]
    for label, task, metric, figures in TABLE:
        if task in results:
            percent = metric.startswith("acc")
            value = results[task][metric] * (100 if percent else 1)
            paper = "".join(f"{figure:8.2f}" for figure in figures)
            shown = f"{value:.2f}" if value < 1e6 else f"{value:.2e}"
            lines.append(f"{label:18}{metric:17}{shown:>12}   {paper}")
    return lines
