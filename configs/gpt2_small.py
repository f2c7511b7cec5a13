"""GPT-2 small, 124,439,808 parameters, on a corpus of your own in GPT-2's BPE.

Command:
  gpt2-jax train --config configs/gpt2_small.py --workdir runs/small --config.data.path=DIR
Hardware: 8 GPUs of 40 GB, or a TPU slice of 8 chips;
  if a microbatch does not fit, raise train.accumulation_steps.
Time: not yet run.
Expected loss: not yet run here at length. llm.c publishes about 3.29 on FineWeb's validation set
  after 10B tokens with these settings, nanoGPT 2.85 on OpenWebText after 300B.
"""

from gpt2_jax.config import default


def get_config():
    """Returns the config."""
    c = default()
    c.model.num_layers = 12
    c.model.num_heads = 12
    c.model.d_model = 768
    c.compute.remat = "none"
    c.schedule.learning_rate = 0.0006
    c.schedule.min_learning_rate = 6e-05
    c.schedule.warmup_steps = 700
    c.train.batch_size = 512
    c.train.total_steps = 19_073
    return c
