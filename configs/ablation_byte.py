r"""A two-layer byte-level GPT-2 that trains in half a minute: the base of the records of ablations.

Command:
  gpt2-jax prepare --corpus python-stdlib --tokenizer byte --val_fraction 0.03 \
    --out runs/data/ablation_byte
  gpt2-jax train --config configs/ablation_byte.py --workdir runs/ablation_byte
  gpt2-jax sweep --sweep experiments/records/2026-11-28_noise_floor/sweep.py --out runs/noise_floor
Hardware: 1 CPU core for each of the runs that a sweep runs at the same time.
Time: about half a minute a run of 1 M tokens.
Expected loss: 1.97 nats per byte held out, 2.84 bits.
"""

from gpt2_jax.config import default


def get_config():
    """Returns the config."""
    c = default()
    c.model.num_layers = 2
    c.model.num_heads = 4
    c.model.d_model = 128
    c.model.context_length = 128
    c.model.vocab_multiple = 16
    c.compute.dtype = "float32"
    c.compute.loss_chunk = 0
    c.data.path = "runs/data/ablation_byte"
    c.data.tokenizer = "byte"
    c.schedule.learning_rate = 2.0**-8
    # Nothing, so that a grid of rates changes one number.
    c.schedule.min_learning_rate = 0.0
    c.schedule.warmup_steps = 50
    c.train.batch_size = 8
    c.train.total_steps = 1000
    c.checkpoint.every = 1000
    c.eval.every = 250
    c.eval.sample_tokens = 0
    c.log.every = 20
    c.log.norms_every = 0
    c.log.tensorboard = False
    return c
