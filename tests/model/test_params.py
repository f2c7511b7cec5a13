from __future__ import annotations

import jax
import numpy as np
import pytest

from gpt2_jax.model.params import cast, output_table, unstack


def test_unstacked_layers_are_the_slices_of_the_stacked_ones(tiny, noisy_params):
    params = noisy_params(tiny())
    unrolled = unstack(params, 2)
    assert set(unrolled) == (set(params) - {"h"}) | {"h_0", "h_1"}
    assert unrolled["wte"] is params["wte"]
    for i in range(2):
        slices = jax.tree.map(lambda leaf, i=i: leaf[i], params["h"])
        assert jax.tree.structure(slices) == jax.tree.structure(unrolled[f"h_{i}"])
        jax.tree.map(np.testing.assert_array_equal, slices, unrolled[f"h_{i}"])


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_a_cast_leaves_norms_in_float32(tiny, noisy_params, norm):
    params = noisy_params(tiny(norm=norm))
    half = cast(params, "bfloat16")
    assert jax.tree.structure(half) == jax.tree.structure(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(half):
        expected = "float32" if "'ln_" in jax.tree_util.keystr(path) else "bfloat16"
        assert leaf.dtype == expected, path


def test_the_output_matrix_is_the_embedding_unless_the_model_is_untied(tiny, noisy_params):
    tied, untied = noisy_params(tiny()), noisy_params(tiny(tie_embeddings=False))
    assert output_table(tied) is tied["wte"]
    assert output_table(untied) is untied["lm_head"]
