"""GPT-2 large, 774,030,080 parameters, on a corpus of your own in GPT-2's BPE.

Command:
  gpt2-jax train --config configs/gpt2_large.py --workdir runs/large --config.data.path=DIR
Hardware: 8 GPUs of 80 GB, or a TPU slice of 32 chips;
  if a microbatch does not fit, raise train.accumulation_steps.
Time: not yet run.
Expected loss: not yet run here.
"""

from gpt2_jax.config import default


def get_config():
    """Returns the config."""
    c = default()
    c.model.num_layers = 36
    c.model.num_heads = 20
    c.model.d_model = 1280
    c.compute.remat = "none"
    c.schedule.learning_rate = 0.00025
    c.schedule.min_learning_rate = 2.5e-05
    c.schedule.warmup_steps = 700
    c.train.batch_size = 512
    c.train.total_steps = 19_073
    return c
