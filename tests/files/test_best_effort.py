from __future__ import annotations

from gpt2_jax.files.best_effort import warn_if_not_written


def test_a_failure_is_a_warning_that_names_the_file(capsys):
    with warn_if_not_written("samples/5.txt"):
        raise ConnectionError("no\nroute")
    assert capsys.readouterr().err == "warning: samples/5.txt was not written: no route\n"


def test_success_is_silent(capsys):
    with warn_if_not_written("samples/5.txt"):
        pass
    assert capsys.readouterr().err == ""
