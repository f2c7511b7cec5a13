"""A recorded point is trained again and compared."""

from __future__ import annotations

import json
import shutil
import types
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.errors import Gpt2JaxError, UserError
from gpt2_jax.sweeps.report import verify as verifying
from gpt2_jax.sweeps.report.record import write_record
from gpt2_jax.sweeps.report.verify import Match, run_command, verification, verify
from tests.sweeps.made_sweep import write_sweep


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    finals = {"learned": [1.5, 1.6], "none": [1.7, 1.8]}
    ends = {("none", 1): ("failed", "")}
    return write_sweep(tmp_path / "record", finals, baseline="learned", ends=ends)


def _trains(folder: Path, change: float = 0.0, commands: list | None = None) -> Callable:
    """Returns a function in place of training, which copies the recorded metrics."""

    def train(words: Sequence[str]) -> int:
        if commands is not None:
            commands.append(list(words))
        workdir = Path(words[words.index("--workdir") + 1])
        stop = int(words[words.index("--stop_at_step") + 1])
        recorded = folder / "points" / "main-none-s0" / "run" / "metrics.jsonl"
        lines = [json.loads(line) for line in recorded.read_text().splitlines()]
        workdir.mkdir()
        with (workdir / "metrics.jsonl").open("w") as file:
            for line in (line for line in lines if line["step"] <= stop):
                changed = {"loss": line["loss"] + change} if "loss" in line else {}
                file.write(json.dumps(line | changed) + "\n")
        return 0

    return train


def test_the_command_of_a_finished_point_runs_in_another_folder(folder, capsys):
    commands: list[list[str]] = []
    found = verify(folder, 50, _trains(folder, commands=commands))
    point, matches = found.point, found.matches
    assert point.name == "main-none-s0"
    ((*words, flag, steps),) = commands
    assert (flag, steps) == ("--stop_at_step", "50") and words[0] == "train"
    assert words[-1] == "--config.model.position=none" and "main-none-s0" not in words
    assert {match.step for match in matches} == {10, 20, 30, 40, 50}
    assert {match.metric for match in matches} == {"loss", "learning_rate"}
    assert all(match.recorded == match.again for match in matches)
    text = verification(found)
    assert "10 are equal in all recorded digits; of the 10 that are judged, all match" in text
    assert not Path(words[words.index("--workdir") + 1]).exists()


def test_differences_end_with_status_1(folder, monkeypatch, capsys):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for change, status in ((1e-5, 0), (0.1, 1)):
        train = _trains(folder, change)
        monkeypatch.setattr(
            verifying, "run_command", lambda words, cores, train=train: train(words)
        )
        assert main(["report", "--verify", str(folder), "--steps", "20"]) == status
    out = capsys.readouterr().out
    assert "4 that are judged, 2 differ" in out and out.count("DIFFERS") == 2
    assert "What is not equal was rounded otherwise" in out
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_rounding_may_grow_but_the_loss_must_stay():
    assert Match(10, "loss", 3.0, 3.002).matches and not Match(10, "loss", 3.0, 3.004).matches
    assert Match(11, "loss", 3.0, 3.02).matches and not Match(11, "loss", 3.0, 3.04).matches
    assert not Match(10, "grad_norm", 1.0, 1.1).matches
    assert Match(11, "grad_norm", 1.0, 1.9).matches
    assert not Match(99, "learning_rate", 1e-3, 1.1e-3).matches


def test_the_command_gets_as_many_cores_as_are_asked_for(monkeypatch):
    commands: list[list[str]] = []
    monkeypatch.setattr(verifying, "available_cores", lambda: [3, 5, 7])
    done = types.SimpleNamespace(returncode=0)
    monkeypatch.setattr(
        verifying.subprocess, "run", lambda command, **_: commands.append(command) or done
    )
    assert run_command(["train"], 2) == run_command(["train"]) == 0
    assert [command[4] for command in commands] == ["3,5", "all"]
    assert all(command[-3:] == ["-m", "gpt2_jax", "train"] for command in commands)
    with pytest.raises(UserError, match="--cores 4: this process may use 3"):
        run_command(["train"], 4)


def test_a_point_is_chosen_by_its_name_and_changed_knobs_are_named(folder, capsys):
    def train(words: Sequence[str]) -> int:
        status = _trains(folder)(words)
        config = {"model": {"position": "learned", "num_layers": 3}, "log": {"every": 9}}
        workdir = Path(words[words.index("--workdir") + 1])
        (workdir / "config.json").write_text(json.dumps(config))
        return status

    found = verify(folder, 20, train, name="main-learned-s1")
    assert found.point.name == "main-learned-s1"
    assert found.knobs == ["model.num_layers was 2 and is now 3"]
    assert "the config is no longer the recorded one: model.num_layers" in verification(found)
    for name, message in (
        ("main-learned-s2", "no such point; did you mean 'main-learned-s"),
        ("main-none-s1", "the point main-none-s1 is not both done and recorded"),
    ):
        assert main(["report", "--verify", str(folder), "--point", name]) == 2
        assert message in capsys.readouterr().err


def test_a_record_is_verified_after_the_sweep_is_gone(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_record(folder, tmp_path / "r")
    written = []

    def train(words: Sequence[str]) -> int:
        config = Path(words[words.index("--config") + 1])
        if config.name == "recorded.py":
            names: dict = {}
            exec(config.read_text(), names)
            written.append(names["get_config"]())
        return _trains(folder)(words)

    assert all(each.matches for each in verify(tmp_path / "r", 100, train).matches)
    # The base config is gone, so the recorded one takes its place.
    assert written[0].model.position == "none" and written[0].model.num_layers == 2
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tiny.py").touch()
    verify(tmp_path / "r", 100, train)
    assert len(written) == 1


def test_what_cannot_be_verified_says_why(folder):
    with pytest.raises(Gpt2JaxError, match="main-none-s0 ended with status 2"):
        verify(folder, 50, lambda words: 2)
    with pytest.raises(UserError, match="no metrics up to step 5"):
        verify(folder, 5, _trains(folder))
    path = folder / "points" / "main-none-s0" / "point.json"
    path.write_text(path.read_text().replace("gpt2-jax train", "python train.py"))
    with pytest.raises(UserError, match="the command is no gpt2-jax train"):
        verify(folder, 50, _trains(folder))
    shutil.rmtree(folder / "points")
    with pytest.raises(UserError, match="has no points yet"):
        verify(folder, 50, _trains(folder))


def test_a_record_says_how_many_cores_each_point_had(folder, monkeypatch):
    used = []
    monkeypatch.setattr(verifying, "available_cores", lambda: [3, 5, 7])
    trains = _trains(folder)
    monkeypatch.setattr(
        verifying, "run_command", lambda words, cores: used.append(cores) or trains(words)
    )
    path = folder / "sweep.json"
    for recorded in ("2", "2; 4", "64", ""):
        values = json.loads(path.read_text()) | {"environment": {"cores": recorded}}
        path.write_text(json.dumps(values))
        verify(folder, 20)
    verify(folder, 20, cores=1)
    assert used == [2, None, None, None, 1]


def test_later_lines_are_compared_in_the_digits_that_records_keep():
    assert Match(300, "loss", 1.23457, 1.2345678).is_equal
    assert not Match(300, "loss", 1.23457, 1.2345478).is_equal
