"""The best and the newest step of a run are models, also while a trainer replaces them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gpt2_jax.checkpoint.best import Best, write_record
from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.cli.main import main
from gpt2_jax.errors import StorageError, UserError
from gpt2_jax.formats.load import load, open_model, read_text_tokenizer
from gpt2_jax.formats.places import BEST, NEWEST, Place, is_place, locate
from tests.inference.tiny import make_run, tiny_config

_SMALL = {"num_layers": 1, "scan_unroll": 1, "d_model": 8, "num_heads": 1}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the steps 2, 4 and 6, of which 4 is the best; tests do not change it."""
    folder = tmp_path_factory.mktemp("places") / "run"
    for step in (2, 4, 6):
        make_run(folder, tiny_config(**_SMALL), step=step)
    write_record(folder / "checkpoints", Best("eval/loss", 4, 1.5))
    values = [(2, 3.0), (4, 1.5), (6, 2.0)]
    lines = (json.dumps({"step": step, "eval/loss": value}) for step, value in values)
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def run(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "run"))


def test_places_name_steps_and_the_run_its_newest(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {"": 6, "checkpoints": 6, "checkpoints/newest": 6, "checkpoints/best": 4}
    for within, step in steps.items():
        model = load(source / within)
        assert model.step == step and model.path == source / "checkpoints" / str(step)
    assert read_text_tokenizer(source / "checkpoints" / "best").name == "byte"
    monkeypatch.chdir(source / "checkpoints")
    assert is_place(Path("best")) and locate(Path("best")) == Place(source / "checkpoints", BEST)
    assert locate(Path(".")) == Place(source / "checkpoints", NEWEST)


def test_a_folder_of_that_name_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "best").mkdir(parents=True)
    assert not is_place(tmp_path / "checkpoints" / "best")
    assert not is_place(tmp_path / "elsewhere" / "best")
    assert not is_place(tmp_path / "none" / "checkpoints" / "best")
    with pytest.raises(UserError, match="no model at"):
        load(tmp_path / "none" / "checkpoints" / "best")


def test_the_best_is_found_without_its_record(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    config["checkpoint"]["best"] = "eval/loss"
    (run / "config.json").write_text(json.dumps(config))
    (run / "checkpoints" / "best.json").write_text("{")
    with open_model(run / "checkpoints" / "best") as reader:
        assert reader.step == 4
    shutil.rmtree(run / "checkpoints" / "4")
    with open_model(run / "checkpoints" / "best") as reader:
        assert reader.step == 6


def test_a_run_without_a_best_step_says_so(run: Path) -> None:
    (run / "checkpoints" / "best.json").unlink()
    with pytest.raises(UserError, match=r"best: no step .* trained without checkpoint\.best"):
        load(run / "checkpoints" / "best")


def test_a_damaged_best_step_is_reported_and_not_replaced(run: Path) -> None:
    next((run / "checkpoints" / "4" / "params" / "d").iterdir()).write_bytes(b"")
    with pytest.raises(StorageError, match=r"checkpoints/4 is damaged \(params/d/"):
        load(run / "checkpoints" / "best")


@pytest.mark.parametrize("moment", ["damage", "meta", "restore_params"])
def test_a_best_step_that_the_trainer_replaces_meanwhile_is_looked_up_again(
    run: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    original = getattr(CheckpointStore, moment)

    def replace_first(self: CheckpointStore, step: int, *args: object) -> object:
        if step == 4:
            write_record(self.directory, Best("eval/loss", 6, 1.0))
            shutil.rmtree(self.directory / "4", ignore_errors=True)
        return original(self, step, *args)

    monkeypatch.setattr(CheckpointStore, moment, replace_first)
    model = load(run / "checkpoints" / "best")
    assert model.step == 6 and model.path == run / "checkpoints" / "6"


def test_doctor_says_which_step_is_the_best(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--model", str(source)]) == 0
    output = capsys.readouterr().out
    assert "the newest good step is 6\nthe best step is 4: eval/loss 1.5000\n" in output
    assert "best.json" not in output
    assert main(["doctor", "--model", str(source / "checkpoints" / "best"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [step["step"] for step in report["steps"]] == [4]
    assert report["best"] == {"metric": "eval/loss", "step": 4, "value": 1.5}
    assert main(["doctor", "--model", str(source / "checkpoints" / "newest"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [step["step"] for step in report["steps"]] == [6] and report["best"] is None
