from __future__ import annotations

from gpt2_jax.planning.hlo import Program
from tests.planning.programs import TPU


def test_a_loop_counts_as_often_as_it_runs_and_marks_for_unknown_do_not():
    assert Program(TPU).cycles() == 12 * 150 + 7


def test_kernels_are_listed_with_their_runs():
    assert Program(TPU).kernels() == [("jit(step)/splash_fwd", 12)]


def test_an_instruction_says_where_it_comes_from():
    names = {one.name: one.op_name for one in Program(TPU).computations["start"]}
    assert names == {"p.1": "", "all-gather.1": "jit(step)/h/weights", "begin": ""}
