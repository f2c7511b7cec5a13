"""Tests the table of the GPT-2 paper."""

from __future__ import annotations

from gpt2_jax.evals import paper, sources


def test_the_papers_table_is_of_tasks_that_there_are() -> None:
    assert [*sources.GROUPS["gpt2_paper"]] == list(dict.fromkeys(row.task for row in paper.TABLE))
    for row in paper.TABLE:
        better = sorted(row.figures, reverse=not row.metric.startswith("acc"))
        # Larger models are better, but for one pair.
        assert [*row.figures] == better or row.label == "CBT-CN (ACC)"
