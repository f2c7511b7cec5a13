"""A step in float32 keeps the products of its program for a TPU in float32."""

from __future__ import annotations

import re

import pytest

from gpt2_jax.config import from_dict
from gpt2_jax.planning import aot
from gpt2_jax.planning.topology import compile_without_devices, parse_topology

pytestmark = pytest.mark.libtpu


@pytest.fixture(scope="module", autouse=True)
def _no_devices():
    with pytest.MonkeyPatch.context() as patch:
        for name in (
            "JAX_PLATFORMS",
            "TPU_SKIP_MDS_QUERY",
            "ALLOW_MULTIPLE_LIBTPU_LOAD",
            "JAX_ENABLE_COMPILATION_CACHE",
        ):
            patch.setenv(name, "")  # so that it is put back
        compile_without_devices()
        yield


@pytest.mark.parametrize(
    ("precision", "attention", "highest"),
    [
        (None, "splash", True),
        (None, "reference", True),
        ("default", "reference", False),  # otherwise the other two would show nothing
    ],
)
def test_every_product_of_a_float32_step_is_exact(precision, attention, highest, monkeypatch):
    texts = []

    def program(text, make=aot.Program):
        texts.append(text)
        return make(text)

    monkeypatch.setattr(aot, "Program", program)
    config = from_dict(
        {
            "model": {
                "num_layers": 2,
                "num_heads": 2,
                "d_model": 128,
                "context_length": 128,
                "vocab_size": 256,
            },
            "compute": {"dtype": "float32", "precision": precision, "attention": attention},
            "train": {"batch_size": 4},
        }
    )
    step = aot.compile_step(config, parse_topology("v5e:2x2"))
    assert isinstance(step, aot.CompiledStep)
    assert bool(step.kernels) == (attention == "splash")
    products = re.findall(r"= (\w+)\[\S+ (?:convolution|dot)\((.*)", texts[0])
    assert len(products) >= 15
    exact = ["operand_precision={highest,highest}" in rest for _, rest in products]
    assert all(exact) if highest else not any(exact)
    if highest:
        assert {dtype for dtype, _ in products} == {"f32"}
