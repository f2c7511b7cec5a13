"""What a run of several processes writes beside checkpoints is what a run of one writes."""

from __future__ import annotations

import pytest
from tensorboard.backend.event_processing.event_accumulator import HISTOGRAMS, EventAccumulator

from tests.runs import finish, make_lab, start_group, train


@pytest.mark.slow
def test_samples_and_histograms_of_two_processes_are_those_of_one(tmp_path_factory):
    lab = make_lab(tmp_path_factory, "outputs")
    flags = (
        "--config.mesh.data=1",
        "--config.mesh.fsdp=2",
        "--config.mesh.tensor=2",
        "--config.eval.sample_tokens=12",
        "--config.eval.every=10",
    )
    flags = (*flags, "--config.log.histograms_every=10", "--config.log.tensorboard=true")
    workdirs = [lab / "one-writes", lab / "two-write"]
    train(lab, workdirs[0], *flags, devices=4)
    finish(start_group(lab, workdirs[1], *flags, processes=2, devices=2))
    texts, histograms = [], []
    for workdir in workdirs:
        files = sorted((workdir / "samples").iterdir())
        assert [file.name for file in files] == ["10.txt", "20.txt"]
        texts.append([file.read_text() for file in files])
        events = EventAccumulator(str(workdir / "tensorboard"), {HISTOGRAMS: 0}).Reload()
        names = events.Tags()["histograms"]
        histograms.append(
            {name: [each.histogram_value for each in events.Histograms(name)] for name in names}
        )
    assert texts[0] == texts[1] and all(texts[0])
    assert histograms[0].keys() == histograms[1].keys() and len(histograms[0]) > 10
    for name, values in histograms[0].items():
        assert len(values) == len(histograms[1][name]) == 2
        for one, other in zip(values, histograms[1][name], strict=True):
            assert (one.num, one.max) == pytest.approx((other.num, other.max), rel=1e-4)
