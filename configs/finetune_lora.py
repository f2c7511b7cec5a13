"""Fine-tunes adapters (LoRA) of any model on a file of your own; see docs/finetuning.md.

Command:
  gpt2-jax train --config configs/finetune_lora.py --workdir runs/adapted \
    --config.train.init_from=M --config.data.path=FILE.jsonl
Hardware: 2 CPU cores for a model of a million parameters; one GPU of 8 GB for gpt2.
Time: 3 to 10 minutes on 2 CPU cores for the model of configs/quickstart.py.
Expected loss: 0.004 nats per answer token on the words of experiments/finetuning/reversed_words.py,
  where configs/finetune.py ends at 0.0001; both answer every word.
"""

from gpt2_jax.config import default


def get_config():
    """Returns the config."""
    c = default()
    c.train.init_model = True
    # Attention alone: adapters of the MLP, too, are more than 2 % of a small model.
    c.model.lora_rank = 8
    c.model.lora_alpha = 16.0
    c.model.lora_targets = "attn.c_attn,attn.c_proj"
    c.compute.dtype = "auto"
    c.data.val_fraction = 0.05
    # Several times the rate of all parameters; at ten times, it learned nothing here.
    c.schedule.name = "linear"
    c.schedule.learning_rate = 4e-3
    c.schedule.min_learning_rate = 0.0
    c.schedule.warmup_steps = 200
    c.optimizer.weight_decay = 0.0
    c.train.batch_size = 16
    c.train.total_steps = 2000
    c.checkpoint.best = "eval/loss"
    c.checkpoint.every = 100
    c.checkpoint.keep = 1
    c.eval.every = 100
    c.eval.sample_tokens = 0
    c.log.every = 20
    return c
