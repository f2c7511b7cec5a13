#!/usr/bin/env bash
# Runs a command with the compiler flags of a chip, or prints the flags if there is no command.
#
#   launch/flags.sh v5e gpt2-jax train --config configs/gpt2_small.py --workdir gs://bucket/run
#   launch/flags.sh h100                                prints the flags, to set them in a shell
#   launch/flags.sh --dry-run v5e gpt2-jax train ...    prints what would run, without running it
#
# Chips: v4 v5e v5p v6e a100 h100 cpu. Existing values of LIBTPU_INIT_ARGS and XLA_FLAGS come last, so
# that they take precedence. Each flag is listed here with its reason and source, and is removed when
# a version of jax no longer knows it, because an unknown flag ends the process. libtpu 0.0.51 (jax
# 0.10.2) accepts all of the TPU flags when it compiles for a v5e slice, and jax 0.10.2 knows the GPU
# flags; their effect has not been measured on a chip. The flags that FSDP requires on TPUs are set by
# the training step itself (compiler_options in gpt2_jax/training/step.py).
set -euo pipefail

refuse() {
  echo "error: $1 (see launch/flags.sh --help)" >&2
  exit 2
}

dry_run='' chip=''
while (($#)) && [[ $1 == -* || -z $chip ]]; do
  case $1 in
  -h | --help)
    sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"
    exit 0
    ;;
  --dry-run | --dry_run) dry_run=yes ;;
  --) # the other launchers require it before a command
    shift
    break
    ;;
  -*) refuse "unknown flag $1" ;;
  *) chip=$1 ;;
  esac
  shift
done

tpu=()
gpu=()
case $chip in
v4 | v5e | v5p | v6e)
  # Gradient all-reduces of data parallelism overlap with the backward pass, even if the operands
  # differ in size (MaxText, benchmarks/xla_flags_library.py, DATA_PARALLEL_OVERLAP).
  tpu+=(--xla_tpu_enable_data_parallel_all_reduce_opt=true)
  tpu+=(--xla_tpu_data_parallel_opt_different_sized_ops=true)
  ;;&
v6e)
  # More on-chip memory for each operation, which v6e has and compute-bound dense models can use
  # (same file, DENSE_VMEM_LIMIT_FLAG).
  tpu+=(--xla_tpu_scoped_vmem_limit_kib=98304)
  ;;&
a100 | h100)
  # Starts collectives early and ends them late, to overlap with compute; off by default (JAX's "GPU
  # performance tips"; set in NVIDIA's JAX images).
  gpu+=(--xla_gpu_enable_latency_hiding_scheduler=true)
  # In the loop over layers, gathers the next layer's weights during the current one, and scatters
  # a layer's gradients during the one before (JAX-Toolbox, GPU_performance.md, "FSDP").
  gpu+=(--xla_gpu_enable_pipelined_all_gather=true)
  gpu+=(--xla_gpu_enable_pipelined_reduce_scatter=true)
  ;;&
v4 | v5e | v5p | v6e | a100 | h100 | cpu) ;;
'') refuse "the chip is missing: name v4, v5e, v5p, v6e, a100, h100 or cpu" ;;
*) refuse "the chip must be v4, v5e, v5p, v6e, a100, h100 or cpu, not '$chip'" ;;
esac

settings=()
if ((${#tpu[@]})); then
  settings+=("LIBTPU_INIT_ARGS=${tpu[*]}${LIBTPU_INIT_ARGS:+ $LIBTPU_INIT_ARGS}")
fi
if ((${#gpu[@]})); then
  settings+=("XLA_FLAGS=${gpu[*]}${XLA_FLAGS:+ $XLA_FLAGS}")
fi
if (($# == 0)); then
  ((${#settings[@]})) || echo "$chip needs no flags" >&2
  for setting in "${settings[@]}"; do
    printf 'export %q\n' "$setting"
  done
elif [[ $dry_run ]]; then
  line="env"
  for word in "${settings[@]}" "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@%+~-]+$ ]] || word=${word@Q}
    line+=" $word"
  done
  echo "$line"
else
  type -P "$1" >/dev/null || refuse "cannot run $1: no such command on the PATH"
  exec env "${settings[@]}" "$@"
fi
