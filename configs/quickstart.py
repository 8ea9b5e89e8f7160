"""Lenses from scratch in ten minutes on two CPU cores.

    ./launch/quickstart.sh

or, if lensjax is already installed,

    python -m lensjax.main --config=configs/quickstart.py --workdir=runs/quickstart

builds `deeplense/model_ii_mini` (3,600 images) and trains a UNet of 1.4 M parameters on patches of
8x8 pixels. The network predicts x0, and the loss is the error of the velocity. A network that
predicts the velocity has a median eight times as high. `benchmarks/compare.py` compares the
candidates after equal processor time. The sampler is `ddim` with all of DDPM's noise: with 200
images a class, the median is 0.026 and 8 of 24 goals are missed; with `dpmpp_2m` it is 0.028, and
10 are (`benchmarks/results/quickstart_samplers.json`).

Hardware: two CPU cores. Time: ten minutes of processor time, which two free cores share. Expected
score of `--mode=evaluate`: no_sub median 0.026, 90 % below 0.031, dark pixels 0.018 %; cdm 0.062,
axion 0.124. `configs/cpu_fast.py` reaches 0.012 in an hour.
"""

from ml_collections import ConfigDict

from lensjax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "deeplense/model_ii_mini"
    config.data.scaling = "sqrt"
    config.model.name = "unet"
    config.model.prediction = "x0"
    config.model.patch_size = 8
    config.model.widths = (64, 128)
    config.model.blocks = 1
    config.model.condition_width = 256
    config.loss.space = "velocity"
    config.loss.time_distribution = "logit_normal"
    config.loss.stratified = True
    config.optim.learning_rate = 1.5e-3
    config.optim.warmup_steps = 100
    config.optim.weight_decay = 0.0
    config.optim.ema_half_life_images = 2_000
    config.optim.ema_warmup_share = 0.1
    config.train.batch_size = 24
    config.train.num_steps = 12_500
    config.train.evaluate_every = 3_000
    config.train.evaluate_images = 192
    config.train.sample_every = 6_000
    config.train.checkpoint_every = 1_000
    config.train.log_every = 100
    config.sample.sampler = "ddim"
    config.sample.eta = 1.0
    config.sample.steps = 20
    config.sample.time_grid = "karras"
    config.sample.guidance = 1.0
    config.sample.num_images = 48
    config.sample.batch_size = 48
    # The measures of a minute; `--config.evaluate.measures=all` takes thirteen, baselines included.
    config.evaluate.num_images = 64
    config.evaluate.measures = "smooth_fit,axion_fit,free_fit,shapes,classes,twins,copies"
    config.evaluate.baselines = False
    return config
