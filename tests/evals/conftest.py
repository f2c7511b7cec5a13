"""Makes the model that lm-eval is given in the tests of the harness.

JAX reads JAX_PLATFORMS once, when it is imported, and pytest may read this file before
`tests/conftest.py` has set that variable. So only the fixtures import what needs JAX.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gpt2_jax.evals.harness import GPT2JaxLM


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.evals.plain_forwards import CONFIG
    from tests.inference.tiny import make_run

    return make_run(tmp_path_factory.mktemp("harness") / "run", CONFIG)


@pytest.fixture(scope="module")
def model(run: Path) -> GPT2JaxLM:
    from gpt2_jax.evals.harness import GPT2JaxLM

    return GPT2JaxLM(run, batch_size=4)
