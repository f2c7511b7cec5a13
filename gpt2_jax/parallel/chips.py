"""Peak figures of accelerators: the one table that MFU, planning and `gpt2-jax doctor` read.

Figures are per JAX device (one entry of `jax.devices()`), dense (without structured sparsity) and
as the vendor states them; no chip sustains its peak. Nothing here imports JAX, because
planning runs without devices.
"""

from __future__ import annotations

import dataclasses
import re

from gpt2_jax.errors import UserError, did_you_mean

_GIB = 2**30
_TERA = 1e12
_GIGA = 1e9
# Share of a GPU's memory that JAX takes by default.
_GPU_SHARE = 0.75


@dataclasses.dataclass(frozen=True)
class Chip:
    """Holds the peak figures of one accelerator.

    Attributes:
      name: short and unique, such as `h100-sxm` or `v5e`.
      matches: regular expressions, one of which matches the whole `device_kind`; case is ignored.
      peak_bf16_flops: dense bfloat16 matrix FLOP/s with float32 accumulation (on V100, which has no
        bfloat16, float16).
      hbm_bytes: size of the memory.
      hbm_bandwidth: bytes/s between memory and compute.
      link_bandwidth: bytes/s that leave the device over all its NVLink or ICI links together, one
        direction (vendors quote the sum of both); PCIe if there is no such link.
      clock_hz: boost clock; None if the source does not state one.
      source: the document the figures come from.
      network_bandwidth: bytes/s that a TPU can send to other slices over the data center's network;
        None if the source does not state it.
      usable_hbm_bytes: memory that a program may use, as libtpu 0.0.51 states it; None if the
        runtime decides.
      matrix_unit: rows and columns of a TPU's matrix unit; None for GPUs, or if the source does not
        state it.
      compute_capability: of a GPU, which decides what its libraries offer; None for TPUs.
    """

    name: str
    matches: tuple[str, ...]
    peak_bf16_flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    link_bandwidth: float
    source: str
    clock_hz: float | None = None
    usable_hbm_bytes: int | None = None
    network_bandwidth: float | None = None
    matrix_unit: int | None = None
    compute_capability: float | None = None

    @property
    def is_tpu(self) -> bool:
        """Returns whether it is a TPU; the others are GPUs."""
        return self.matches[0].startswith("TPU")

    @property
    def available_bytes(self) -> int:
        """Returns the memory that a program may use; of a GPU what JAX takes by default."""
        share = 1 if self.is_tpu else _GPU_SHARE
        return self.usable_hbm_bytes or int(share * self.hbm_bytes)


def _chip(
    name: str,
    matches: tuple[str, ...],
    *,
    tflops: float,
    gib: int,
    memory: float,
    links: float,
    source: str,
    clock_mhz: float | None = None,
    usable: float | None = None,
    network_gbits: float | None = None,
    matrix_unit: int | None = None,
    capability: float | None = None,
) -> Chip:
    """Makes an entry from datasheet units: TFLOP/s, GiB, GB/s, GB/s both ways, MHz, GiB, Gbit/s."""
    return Chip(
        name=name,
        matches=matches,
        peak_bf16_flops=tflops * _TERA,
        hbm_bytes=gib * _GIB,
        hbm_bandwidth=memory * _GIGA,
        link_bandwidth=links / 2 * _GIGA,
        source=source,
        clock_hz=None if clock_mhz is None else clock_mhz * 1e6,
        usable_hbm_bytes=None if usable is None else int(usable * _GIB),
        network_bandwidth=None if network_gbits is None else network_gbits / 8 * _GIGA,
        matrix_unit=matrix_unit,
        compute_capability=capability,
    )


_TPU_DOCS = "Google Cloud TPU documentation, key specifications of "
# A matrix unit has 128 x 128 cells of 2 FLOPs per cycle each; v5e has four units, v5p eight, and
# v6e two of 256 x 256 cells.
_TPU_CLOCK = "clock: the peak over the matrix units' FLOPs per cycle"
_NVIDIA = "NVIDIA, "

# NVIDIA's "GB" of memory are GiB as the driver reports them, less about half a percent for ECC.
# Where a datasheet gives only the figure with sparsity, tflops is half of it. Compute capabilities
# are in the appendix of that name of the CUDA C++ Programming Guide.
CHIPS: tuple[Chip, ...] = (
    _chip(
        "v4",
        (r"TPU v4",),
        tflops=275,
        gib=32,
        memory=1200,
        links=600,  # six links of 50 GB/s a direction
        clock_mhz=1050,
        usable=30.75,
        matrix_unit=128,
        source=_TPU_DOCS + "v4; clock and links: Jouppi et al. 2023, TPU v4, table 4",
    ),
    _chip(
        "v5e",
        (r"TPU v5 ?lite", r"TPU v5e"),
        tflops=197,
        gib=16,
        memory=819,
        links=400,
        clock_mhz=1503,
        usable=15.75,
        network_gbits=6400 / 256,
        matrix_unit=128,
        source=_TPU_DOCS + "v5e; " + _TPU_CLOCK,
    ),
    _chip(
        "v5p",
        (r"TPU v5p?",),
        tflops=459,
        gib=95,
        memory=2765,
        links=1200,
        clock_mhz=1751,
        usable=95.7,
        network_gbits=50,
        matrix_unit=128,
        source=_TPU_DOCS + "v5p; " + _TPU_CLOCK,
    ),
    _chip(
        "v6e",
        (r"TPU v6 ?lite", r"TPU v6e"),
        tflops=918,
        gib=32,
        memory=1638,
        links=800,
        clock_mhz=1751,
        usable=31.2,
        network_gbits=25600 / 256,
        matrix_unit=256,
        source=_TPU_DOCS + "v6e (Trillium); " + _TPU_CLOCK,
    ),
    # A chip is two chiplets and JAX sees each as a device, so these are half of the chip's 2307
    # TFLOP/s, 192 GiB, 7380 GB/s and 1200 GB/s.
    _chip(
        "v7x",
        (r"TPU ?v?7x",),
        tflops=2307 / 2,
        gib=96,
        memory=7380 / 2,
        links=1200 / 2,
        source=_TPU_DOCS + "TPU7x (Ironwood)",
    ),
    _chip(
        "a100-40gb",
        (r".*A100.*40GB.*",),
        tflops=312,
        gib=40,
        memory=1555,
        links=600,
        clock_mhz=1410,
        capability=8.0,
        source=_NVIDIA + "A100 Tensor Core GPU datasheet; clock: Ampere GA100 whitepaper",
    ),
    _chip(
        "a100-80gb",
        (r".*A100.*80GB.*",),
        tflops=312,
        gib=80,
        memory=2039,  # the PCIe card has 1935
        links=600,
        clock_mhz=1410,
        capability=8.0,
        source=_NVIDIA + "A100 80GB Tensor Core GPU datasheet; clock: Ampere GA100 whitepaper",
    ),
    _chip(
        "h100-pcie",
        (r".*H100.*PCIe.*",),
        tflops=1513 / 2,
        gib=80,
        memory=2000,
        links=600,
        capability=9.0,
        source=_NVIDIA + "H100 Tensor Core GPU datasheet, PCIe",
    ),
    _chip(
        "h100-sxm",
        (r".*H100.*HBM3", r".*H100.*SXM.*"),
        tflops=1979 / 2,
        gib=80,
        memory=3350,
        links=900,
        capability=9.0,
        source=_NVIDIA + "H100 Tensor Core GPU datasheet, SXM",
    ),
    _chip(
        "h200",
        (r"(?!.*GH200).*H200(?! NVL).*",),
        tflops=1979 / 2,
        gib=141,
        memory=4800,
        links=900,
        capability=9.0,
        source=_NVIDIA + "H200 Tensor Core GPU datasheet, SXM",
    ),
    _chip(
        "b200",
        (r"(?!.*GB200).*B200.*",),
        tflops=2250,
        gib=180,
        memory=8000,
        links=1800,
        capability=10.0,
        source=_NVIDIA + "HGX B200 in the Blackwell architecture technical brief (an eighth of it)",
    ),
    _chip(
        "l4",
        (r"(NVIDIA )?L4",),
        tflops=242 / 2,
        gib=24,
        memory=300,
        links=64,  # PCIe Gen4 x16
        capability=8.9,
        source=_NVIDIA + "L4 Tensor Core GPU datasheet",
    ),
    _chip(
        "a10g",
        (r".*A10G",),
        tflops=140 / 2,
        gib=24,
        memory=600,
        links=64,  # PCIe Gen4 x16
        capability=8.6,
        source=_NVIDIA + "A10G datasheet (the A10 made for AWS G5, with half its tensor rate)",
    ),
    _chip(
        "v100-16gb",
        (r".*V100-SXM[23]-16GB",),
        tflops=125,  # float16
        gib=16,
        memory=900,
        links=300,
        clock_mhz=1530,
        capability=7.0,
        source=_NVIDIA + "V100 datasheet, SXM2; clock: Tesla V100 architecture whitepaper",
    ),
    _chip(
        "v100-32gb",
        (r".*V100-SXM[23]-32GB.*",),
        tflops=125,  # float16
        gib=32,
        memory=900,
        links=300,
        clock_mhz=1530,
        capability=7.0,
        source=_NVIDIA + "V100 datasheet, SXM2; clock: Tesla V100 architecture whitepaper",
    ),
    _chip(
        "rtx-4090",
        (r".*RTX 4090",),
        tflops=165.2,
        gib=24,
        memory=1008,
        links=64,  # PCIe Gen4 x16
        clock_mhz=2520,
        capability=8.9,
        source=_NVIDIA + "Ada GPU architecture whitepaper, appendix A",
    ),
)


# Variants that are meant by a name without one.
_DEFAULT_VARIANTS = {"h100": "h100-sxm", "a100": "a100-80gb"}


def chip_for(device_kind: str) -> Chip | None:
    """Returns the chip of a `jax.Device.device_kind`; None for CPUs and unknown chips."""
    for chip in CHIPS:
        if any(
            re.fullmatch(pattern, device_kind.strip(), re.IGNORECASE) for pattern in chip.matches
        ):
            return chip
    return None


def chip_named(name: str) -> Chip:
    """Returns the chip of this name, such as `v5e` or `h100`.

    Raises:
      UserError: if the table has no such chip.
    """
    by_name = {chip.name: chip for chip in CHIPS}
    by_name |= {short: by_name[full] for short, full in _DEFAULT_VARIANTS.items()}
    if name not in by_name:
        raise UserError(
            f"--chip must be one of {', '.join(by_name)}, not {name!r}{did_you_mean(name, by_name)}"
        )
    return by_name[name]
