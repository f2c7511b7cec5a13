"""The names that other programs give to knobs and values, so that a message can name ours."""

from __future__ import annotations

SYNONYMS = {
    # nanoGPT's.
    "n_layer": "model.num_layers",
    "n_head": "model.num_heads",
    "n_embd": "model.d_model",
    "block_size": "model.context_length",
    "max_iters": "train.total_steps",
    "lr_decay_iters": "train.total_steps",
    "warmup_iters": "schedule.warmup_steps",
    "min_lr": "schedule.min_learning_rate",
    "gradient_accumulation_steps": "train.accumulation_steps",
    "eval_interval": "eval.every",
    "eval_iters": "eval.batches",
    "log_interval": "log.every",
    "decay_lr": "schedule.name",
    "dataset": "data.path",
    "wandb_log": "log.wandb",
    "wandb_project": "log.wandb",
    # transformers'.
    "num_hidden_layers": "model.num_layers",
    "num_attention_heads": "model.num_heads",
    "hidden_size": "model.d_model",
    "n_positions": "model.context_length",
    "n_ctx": "model.context_length",
    "max_position_embeddings": "model.context_length",
    "activation_function": "model.activation",
    "resid_pdrop": "model.dropout",
    "attn_pdrop": "model.dropout",
    "embd_pdrop": "model.dropout",
    "n_inner": "model.mlp_dim",
    "tie_word_embeddings": "model.tie_embeddings",
    "per_device_train_batch_size": "train.batch_size",
    "max_grad_norm": "optimizer.grad_clip",
    "adam_beta1": "optimizer.beta1",
    "adam_beta2": "optimizer.beta2",
    "adam_epsilon": "optimizer.epsilon",
    "lr_scheduler_type": "schedule.name",
    "gradient_checkpointing": "compute.remat",
    "bf16": "compute.dtype",
    "fp16": "compute.dtype",
    "save_steps": "checkpoint.every",
    "save_total_limit": "checkpoint.keep",
    "eval_steps": "eval.every",
    "logging_steps": "log.every",
    # Common ones.
    "lr": "schedule.learning_rate",
    "eps": "optimizer.epsilon",
    "max_steps": "train.total_steps",
    "num_steps": "train.total_steps",
    "train_steps": "train.total_steps",
    "grad_accum_steps": "train.accumulation_steps",
    "seq_len": "model.context_length",
    "context_size": "model.context_length",
    "num_embeddings": "model.vocab_size",
    "clip_grad": "optimizer.grad_clip",
}
"""Name elsewhere -> knob; none of the names is the name of a knob."""

ELSEWHERE = {
    "out_dir": "the flag --workdir",
    "output_dir": "the flag --workdir",
    "resume_from_checkpoint": "the flag --workdir, which resumes the run that is there",
    "device": "the environment variable JAX_PLATFORMS",
    "use_cpu": "the environment variable JAX_PLATFORMS",
    "no_cuda": "the environment variable JAX_PLATFORMS",
    "eval_only": "the verb eval",
}
"""Name elsewhere -> what does the same here and is no knob."""

_BFLOAT16 = "bfloat16, which has the range of float32, so that no loss scaling is needed"
_FUSED = "auto, which takes cudnn on GPUs and splash on TPUs"

VALUES = {
    "compute.dtype": {
        **dict.fromkeys(("float16", "fp16", "f16", "half"), _BFLOAT16),
        "bf16": "bfloat16",
        **dict.fromkeys(("fp32", "f32", "float", "single"), "float32"),
        "tf32": "float32, with compute.precision=default",
    },
    "compute.precision": {
        **dict.fromkeys(
            ("float32", "fp32", "f32"), "highest, which computes float32 products in float32"
        ),
        **dict.fromkeys(("float16", "fp16", "f16", "half", "bf16"), "bfloat16"),
        "tf32": "default, which is TF32 for float32 on GPUs that have it",
        "medium": "default",
        "auto": "none, which chooses by compute.dtype",
    },
    "compute.attention": {
        **dict.fromkeys(("gpu", "cuda"), "cudnn, the kernel for GPUs"),
        **dict.fromkeys(("tpu", "pallas"), "splash, the kernel for TPUs"),
        **dict.fromkeys(("flash", "flash_attention", "flash_attention_2", "sdpa"), _FUSED),
        **dict.fromkeys(("eager", "math", "xla", "none"), "reference"),
    },
    "compute.remat": {
        **dict.fromkeys(("true", "all", "block", "blocks"), "full"),
        "false": "none",
    },
    "compute.prng": {"threefry": "threefry2x32", "unsafe_rbg": "rbg"},
}
"""Knob -> {value elsewhere, in lower case: what to write here}; no value is one of the choices."""
