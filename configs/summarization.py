r"""Writes one-line summaries of documents, trained from scratch on pairs; see docs/tasks.md.

Command:
  gpt2-jax prepare --task summarization --input DATA --tokenizer bpe:4096 \
    --out runs/data/summarization
  gpt2-jax train --config configs/summarization.py --workdir runs/summarization
  gpt2-jax eval --tasks summarization --data DATA --model runs/summarization/checkpoints/best
DATA has train.jsonl, val.jsonl and test.jsonl, with lines {"document": ..., "summary": ...}.
Hardware: 2 CPU cores.
Time: 55 minutes on a Xeon at 2.8 GHz.
Expected loss: 3.22 nats per token; 31.4 ROUGE-1.
"""

from gpt2_jax.config import default


def get_config():
    """Returns the config."""
    c = default()
    c.model.num_layers = 3
    c.model.num_heads = 4
    c.model.d_model = 256
    c.model.context_length = 256
    c.model.vocab_size = 4096
    # What a summary repeats is copied from the document, which relative distances make easy.
    c.model.position = "rotary"
    c.model.activation = "relu2"
    c.model.dropout = 0.0
    c.compute.dtype = "float32"
    c.compute.scan_unroll = 3
    c.compute.loss_chunk = 0
    c.data.path = "runs/data/summarization"
    c.data.tokenizer = "bpe"
    c.data.prompt_weight = 0.25  # documents have ten times the text of summaries
    c.optimizer.name = "muon"
    c.optimizer.weight_decay = 0.1
    c.schedule.learning_rate = 2.0**-7
    c.schedule.min_learning_rate = 0.0
    c.schedule.warmup_steps = 100
    c.schedule.name = "linear"
    c.train.batch_size = 16
    c.train.total_steps = 3600
    c.checkpoint.best = "eval/loss"
    c.checkpoint.every = 200
    c.checkpoint.keep = 1
    c.eval.every = 200
    c.eval.sample_tokens = 0
    c.log.every = 25
    return c
