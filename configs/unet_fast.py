"""The best UNet for ten minutes of one H100 or H200.

    python -m lensjax.main --config=configs/unet_fast.py --workdir=runs/unet_fast

9.2 million parameters on patches of 4x4 pixels, attention on feature maps of 8 and 4 rows: about
2.7 GFLOP per training image. The loss is that of `configs/cpu_fast.py`. The network has twice as
many parameters, on patches of half the side; in bfloat16 it is below the limit of 20 MB for a
network that comes with lensjax. Matrix products are in bfloat16, parameters and averages in
float32. One dispatch makes ten steps, because one step takes only milliseconds.

6.4 million images at 2.7 GFLOP are 17 PFLOP: 350 seconds at 48 TFLOP/s, a twentieth of the rate of
such a GPU in bfloat16 by its data sheet; convolutions of few channels and small maps leave much of
it idle. The rest of the ten minutes is for compilation, validation and pictures.

Hardware: one H100 or H200. Time and score: not measured, only estimated as above.
"""

from ml_collections import ConfigDict

from lensjax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "deeplense/model_ii"
    config.data.scaling = "sqrt"
    config.model.name = "unet"
    config.model.prediction = "x0"
    config.model.patch_size = 4
    config.model.widths = (96, 160, 192)
    config.model.blocks = 2
    config.model.attention_resolutions = (8, 4)
    config.model.dtype = "bfloat16"
    config.loss.space = "velocity"
    config.loss.time_distribution = "logit_normal"
    config.loss.time_mean = -0.5
    config.loss.uniform_share = 0.05
    config.loss.stratified = True
    config.optim.learning_rate = 5e-4
    config.optim.warmup_steps = 500
    config.optim.weight_decay = 0.0
    config.optim.ema_half_life_images = 50_000
    config.train.batch_size = 256
    config.train.num_steps = 25_000
    config.train.steps_per_dispatch = 10
    config.train.log_every = 100
    config.train.evaluate_every = 5_000
    config.train.sample_every = 10_000
    config.train.checkpoint_every = 5_000
    config.train.keep_every = 5_000
    return config
