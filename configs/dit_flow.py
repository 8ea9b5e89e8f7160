"""NanoDiT with flow matching on DeepLense Model II, as published.

    python -m lensjax.main --config=configs/dit_flow.py --workdir=runs/dit_flow

29.3 million parameters: 6 blocks, 8 heads, width 512, patches of 2 on 64x64 pixels; batch 160,
AdamW at 1e-4, label drop 0.1, 50 Euler steps with guidance 5. The publication states neither the
number of steps nor an average of the weights; 100,000 steps and a half-life of 1.1 million images
(0.9999 per step) are our own choice.

Hardware: an accelerator with 40 GB or more; two CPU cores take seconds for one image.
Time and score on an accelerator: not measured.
"""

from ml_collections import ConfigDict

from lensjax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "deeplense/model_ii"
    config.model.name = "dit"
    config.model.patch_size = 2
    config.model.width = 512
    config.model.depth = 6
    config.model.num_heads = 8
    config.model.prediction = "velocity"
    config.loss.space = "velocity"
    config.loss.time_distribution = "uniform"
    config.loss.label_drop = 0.1
    config.optim.learning_rate = 1e-4
    config.optim.warmup_steps = 1_000
    config.optim.learning_rate_floor = 0.01
    config.optim.weight_decay = 0.01
    config.optim.clip_norm = 1.0
    config.optim.ema_half_life_images = 6_931 * 160
    config.train.batch_size = 160
    config.train.num_steps = 100_000
    config.sample.sampler = "euler"
    config.sample.steps = 50
    config.sample.time_grid = "uniform"
    config.sample.guidance = 5.0
    return config
