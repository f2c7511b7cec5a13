r"""How much does pretraining help summaries, with 1, 10 and 100 % of the examples?

The model is pretrained on the documents of the train split alone, so that both arms know the same
examples and one of them has also read texts without summaries. Each share is a stage of its own,
and has a verdict of its own; steps grow with the share, and are the same for both arms. Models are
of half the width of `configs/summarization.py`, to train 18 of them in about an hour.

    gpt2-jax prepare --input DATA/train.jsonl --text_field document --tokenizer bpe:4096 \
      --out runs/data/documents
    gpt2-jax train --config configs/summarization.py --workdir runs/documents \
      --config.data.path=runs/data/documents --config.model.d_model=128 \
      --config.train.total_steps=400 --config.schedule.warmup_steps=40
    for share in 0.01 0.1 1; do
      gpt2-jax prepare --task summarization --input DATA --tokenizer runs/documents \
        --fraction $share --out runs/data/summaries_$share
    done
    gpt2-jax sweep --sweep experiments/sweeps/transfer.py --out runs/transfer
"""

from gpt2_jax.sweeps import Sweep, arms, product, seeds

# Share of the examples -> steps.
STEPS = {"0.01": 60, "0.1": 160, "1": 320}


def get_sweep():
    """Returns the sweep."""
    stages = {}
    for share, steps in STEPS.items():
        length = {
            "data.path": f"runs/data/summaries_{share}",
            "model.d_model": 128,
            "train.total_steps": steps,
            "schedule.warmup_steps": steps // 10,
            "eval.every": steps // 2,
            "checkpoint.every": steps // 2,
        }
        stages[f"share_{share.replace('.', '_')}"] = product(
            arms(
                {
                    "scratch": length,
                    # A lower rate keeps what was learned; both were chosen before the runs.
                    "pretrained": length
                    | {"train.init_from": "runs/documents", "schedule.learning_rate": 2.0**-8},
                }
            ),
            seeds(3),
        )
    return Sweep(
        base="configs/summarization.py",
        stages=stages,
        baseline="scratch",
        metric="eval/loss",
        delta=0.02,
    )
