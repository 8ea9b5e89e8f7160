"""The best lenses from an hour of training on two CPU cores.

    python -m lensjax.main --config=configs/cpu_fast.py --workdir=runs/cpu_fast

A UNet of 4.8 million parameters on patches of 8x8 pixels, trained on the lenses of
`deeplense/model_ii`, which the simulator draws anew in each step. As in the quickstart, it predicts
x0, the loss is the error of the velocity, and the network works on the square root of the flux. The
times t in training are somewhat closer to the data (`loss.time_mean`), where sub-structure is
decided; a part of them is uniform (`loss.uniform_share`), without which the first passes of the
sampler spoil a few frames. The learning rate falls over the last 30 % of the steps, so that a
longer training can go on from the checkpoint before. The sampler is `ddim` with half of DDPM's
noise.

Hardware: two CPU cores. Time and score: `benchmarks/results/quality.md`; the trained network comes
with lensjax as `pretrained/model_ii`.
"""

from ml_collections import ConfigDict

from lensjax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "deeplense/model_ii"
    config.data.fresh = True
    config.data.scaling = "sqrt"
    config.model.name = "unet"
    config.model.prediction = "x0"
    config.model.patch_size = 8
    config.model.widths = (128, 256)
    config.model.blocks = 1
    config.model.condition_width = 256
    config.loss.space = "velocity"
    config.loss.time_distribution = "logit_normal"
    config.loss.time_mean = -0.5
    config.loss.uniform_share = 0.05
    config.loss.stratified = True
    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = 150
    config.optim.schedule = "cooldown"
    config.optim.cooldown_share = 0.3
    config.optim.weight_decay = 0.0
    config.optim.ema_half_life_images = 10_000
    config.optim.ema_warmup_share = 0.1
    config.train.batch_size = 32
    config.train.num_steps = 40_000
    config.train.evaluate_every = 2_000
    config.train.evaluate_images = 510
    config.train.sample_every = 2_000
    config.train.checkpoint_every = 500
    config.train.keep_every = 5_000
    config.train.log_every = 100
    config.sample.sampler = "ddim"
    config.sample.eta = 0.5
    config.sample.num_images = 48
    config.sample.batch_size = 48
    config.evaluate.num_images = 500
    return config
