"""Fine-tunes any model on a file of your own; see docs/finetuning.md.

Command:
  gpt2-jax train --config configs/finetune.py --workdir runs/tuned \
    --config.train.init_from=M --config.data.path=FILE.jsonl
Hardware: 2 CPU cores for a model of a million parameters; one GPU of 16 GB for gpt2.
Time: 2 to 7 minutes on 2 CPU cores for the model of configs/quickstart.py.
Expected loss: depends on the examples; near 0 nats per answer token where the answer follows from
  the prompt, as in experiments/finetuning/reversed_words.py.
"""

from gpt2_jax.config import default


def get_config():
    """Returns the config."""
    c = default()
    c.train.init_model = True
    c.model.dropout = 0.0
    c.compute.dtype = "auto"
    c.data.val_fraction = 0.05
    c.schedule.name = "linear"
    c.schedule.learning_rate = 1e-3
    c.schedule.min_learning_rate = 0.0
    c.schedule.warmup_steps = 50
    c.optimizer.beta2 = 0.99
    c.optimizer.weight_decay = 0.01
    c.train.batch_size = 16
    c.train.total_steps = 1000
    c.checkpoint.best = "eval/loss"
    c.checkpoint.every = 100
    c.checkpoint.keep = 1
    c.eval.every = 100
    c.eval.sample_tokens = 0
    c.log.every = 20
    return c
