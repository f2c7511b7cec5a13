"""A model is read while a trainer saves newer steps and removes the one that is read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from gpt2_jax.checkpoint import store as store_lib
from gpt2_jax.checkpoint.newest import _LOOKS
from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.errors import StorageError
from gpt2_jax.experiment import evaluate
from gpt2_jax.formats.load import load
from gpt2_jax.model.build import abstract_params
from tests.inference.tiny import make_run, noisy_params, tiny_config

_SMALL = {"num_layers": 1, "scan_unroll": 1, "d_model": 8, "num_heads": 1}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose steps 1 to 6 a test may reveal, one after the other."""
    folder = tmp_path_factory.mktemp("running") / "run"
    for step in range(1, _LOOKS + 2):
        make_run(folder, tiny_config(**_SMALL), step=step)
    return folder


class _Trainer:
    """Commits the next step and removes the older ones at chosen calls of the reader."""

    def __init__(self, source: Path, folder: Path) -> None:
        self._source, self._folder = source, folder / "run" / "checkpoints"
        shutil.copytree(source, folder / "run", ignore=shutil.ignore_patterns("checkpoints"))
        self.step, self.workdir = 0, folder / "run"
        self.save()

    def save(self) -> None:
        self.step += 1
        name = str(self.step)
        shutil.copytree(self._source / "checkpoints" / name, self._folder / name)
        if self.step > 1:
            shutil.rmtree(self._folder / str(self.step - 1))

    def interfere(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, times: int) -> None:
        """Saves before the first `times` calls of a function, or after them if it lists steps."""
        original, left = getattr(owner, name), [times]

        def patched(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs) if name in ("steps", "survey") else None
            if left[0]:
                left[0] -= 1
                self.save()
            return original(*args, **kwargs) if result is None else result

        monkeypatch.setattr(owner, name, patched)


@pytest.fixture
def trainer(workdir: Path, tmp_path: Path) -> _Trainer:
    return _Trainer(workdir, tmp_path)


_MOMENTS = [
    (CheckpointStore, "steps"),
    (store_lib, "find_damage"),
    (CheckpointStore, "survey"),
    (CheckpointStore, "meta"),
    (CheckpointStore, "restore_params"),
]


@pytest.mark.parametrize(("owner", "name"), _MOMENTS, ids=[name for _, name in _MOMENTS])
def test_the_newer_step_is_read_if_the_newest_vanishes(
    trainer: _Trainer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    owner: Any,
    name: str,
) -> None:
    trainer.interfere(monkeypatch, owner, name, times=1)
    model = load(trainer.workdir)
    assert capsys.readouterr().err == ""
    assert model.step == trainer.step == 2 and model.path.name == "2"
    expected = noisy_params(tiny_config(**_SMALL))
    jax.tree.map(np.testing.assert_array_equal, model.params, expected)


def test_an_evaluation_reports_the_step_that_it_has_scored(
    trainer: _Trainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("some text")
    trainer.interfere(monkeypatch, CheckpointStore, "restore_params", times=2)
    assert evaluate(trainer.workdir, texts={"text": tmp_path / "text"})["step"] == 3


def test_a_step_that_was_named_is_not_replaced_by_another(
    trainer: _Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.interfere(monkeypatch, CheckpointStore, "restore_params", times=1)
    with pytest.raises(StorageError, match=r"checkpoints/1"):
        load(trainer.workdir / "checkpoints" / "1")


def test_the_reader_gives_up_if_every_step_vanishes(
    trainer: _Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.interfere(monkeypatch, CheckpointStore, "restore_params", times=_LOOKS)
    with pytest.raises(StorageError, match=rf"cannot read checkpoint .*checkpoints/{_LOOKS}:"):
        load(trainer.workdir)


def test_a_damaged_step_is_no_step_that_was_removed(trainer: _Trainer) -> None:
    for path in (trainer.workdir / "checkpoints" / "1" / "params").rglob("d/*"):
        path.unlink()
    with pytest.raises(StorageError, match=r"every checkpoint in .* is damaged"):
        load(trainer.workdir)


def test_a_step_of_which_any_file_is_gone_is_refused_or_read_whole(workdir: Path) -> None:
    """What a removal leaves behind for a moment never reads as other numbers."""
    expected, abstract = (
        noisy_params(tiny_config(**_SMALL)),
        abstract_params(tiny_config(**_SMALL).model),
    )
    files = sorted(path for path in (workdir / "checkpoints/1/params").rglob("*") if path.is_file())
    for path in files:
        content = path.read_bytes()
        path.unlink()
        store = CheckpointStore(workdir / "checkpoints", read_only=True)
        try:
            params = store.restore_params(1, abstract)
        except StorageError:
            continue
        else:
            jax.tree.map(np.testing.assert_array_equal, params, expected)
        finally:
            store.close()
            path.write_bytes(content)
    assert len(files) > 3
