"""The knobs that determine how the model is computed: speed, memory and rounding."""

from __future__ import annotations

import dataclasses

from gpt2_jax.config.knob import knob

DTYPES = ("float32", "bfloat16", "auto")


@dataclasses.dataclass(frozen=True)
class ComputeConfig:
    """Determines the speed, memory and rounding of the model, never which function it is."""

    dtype: str = knob(
        "bfloat16",
        "dtype of activations and products; auto: bfloat16 on TPUs and GPUs, float32 on CPUs, with "
        "precision=bfloat16 where that is faster",
        choices=DTYPES,
    )
    precision: str | None = knob(
        None,
        "precision of matrix products; unset: highest for float32, whose inputs accelerators would "
        "otherwise round, and the device's default for bfloat16; bfloat16: linear layers, and on "
        "CPUs the training loss, round the factors of float32 products, which is fast on CPUs with "
        "AMX or AVX512-BF16",
        choices=("default", "high", "highest", "bfloat16"),
    )
    remat: str = knob(
        "none",
        "what the backward pass recomputes: nothing, all but matrix products, or whole blocks; "
        "with every layer unrolled it may save no memory",
        choices=("none", "dots", "full"),
    )
    scan_unroll: int | None = knob(
        None,
        "layers per iteration of the scan over layers; unset: all on TPUs for a model of at most "
        "12 layers without remat, and 1 otherwise",
        low=1,
    )
    attention: str = knob(
        "auto",
        "attention kernel; auto: the one for the device, and reference if it cannot run",
        choices=("auto", "reference", "cpu", "cudnn", "splash"),
    )
    loss_chunk: int | None = knob(
        None,
        "positions whose logits the loss holds at a time; 0: the whole sequence; unset: about "
        "1,024 over all sequences of a device on TPUs, about 128 otherwise",
        low=0,
    )
    plain: bool = knob(
        False,
        "differentiate plain JAX operations instead of our own gradients and kernels: slower, but "
        "forward mode and second derivatives work",
    )
    prng: str = knob(
        "threefry2x32",
        "random bits of dropout; rbg is cheaper on TPUs and draws other masks on other meshes",
        choices=("threefry2x32", "rbg"),
    )

    @property
    def matmul_precision(self) -> str | None:
        """Returns what `jax.lax` products take as `precision`; None is the device's default."""
        chosen = self.precision or ("highest" if self.dtype == "float32" else "default")
        if chosen == "default" or chosen == self.dtype:  # factors in bfloat16 need no rounding
            return None
        return chosen
