"""GPT-2 xl, 1,557,611,200 parameters, on a corpus of your own in GPT-2's BPE.

Command:
  gpt2-jax train --config configs/gpt2_xl.py --workdir runs/xl --config.data.path=DIR
Hardware: a TPU slice of 256 chips, or of 64 with train.accumulation_steps=4;
  if a microbatch does not fit, raise train.accumulation_steps.
Time: not yet run.
Expected loss: not yet run here.
"""

from gpt2_jax.config import default


def get_config():
    """Returns the config."""
    c = default()
    c.model.num_layers = 48
    c.model.num_heads = 25
    c.model.d_model = 1600
    c.compute.remat = "none"
    c.schedule.learning_rate = 0.0002
    c.schedule.min_learning_rate = 2e-05
    c.schedule.warmup_steps = 700
    c.train.batch_size = 512
    c.train.total_steps = 19_073
    return c
