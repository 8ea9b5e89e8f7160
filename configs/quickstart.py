"""Lenses from nothing in twelve minutes on two CPU cores.

    ./launch/quickstart.sh

builds `deeplense/model_ii_mini` (3,600 images), trains a UNet of 2.1 M parameters on patches of
4x4 pixels, draws images and scores them. The network predicts x0 and is judged by the velocity,
which on patches learns these images several times faster than predicting the velocity;
`benchmarks/quickstart.py` compares the candidates.
"""

from ml_collections import ConfigDict

from lensjax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "deeplense/model_ii_mini"
    config.model.name = "unet"
    config.model.prediction = "x0"
    config.model.patch_size = 8
    config.model.widths = (64, 128)
    config.model.blocks = 1
    config.model.condition_width = 256
    config.loss.space = "velocity"
    config.optim.learning_rate = 1.5e-3
    config.optim.warmup_steps = 100
    config.optim.weight_decay = 0.0
    config.optim.ema_half_life_images = 2_000
    config.optim.ema_warmup_share = 0.1
    config.train.batch_size = 24
    config.train.num_steps = 4_000
    config.train.sample_every = 2_000
    config.train.checkpoint_every = 1_000
    config.sample.sampler = "heun"
    config.sample.steps = 25
    config.sample.guidance = 1.0
    config.sample.num_images = 48
    config.sample.batch_size = 48
    return config
