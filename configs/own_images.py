"""A UNet on your own image files: class folders, or one flat folder without labels.

    python -m lensjax.main --config=configs/own_images.py --workdir=runs/mine
        --config.data.folder=FOLDER --config.model.num_classes=NUMBER_OF_CLASS_FOLDERS

Check the files first: the same command with `--mode=build_data` reads all of them, reports what it
found, and draws a contact sheet. `num_classes` is 0 for a flat folder. Any image size works; images
with negative pixels need `data.scaling` `asinh` (as here) or `linear`.

Hardware: runs anywhere; an accelerator is better. Time and score depend on your images.
"""

from ml_collections import ConfigDict

from lensjax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "deeplense/folder"
    config.data.folder = "images"
    config.data.scaling = "asinh"
    config.model.name = "unet"
    config.model.num_classes = 0
    config.model.prediction = "x0"
    config.model.patch_size = 4
    config.model.widths = (64, 128, 192)
    config.model.blocks = 1
    config.loss.space = "velocity"
    config.loss.time_distribution = "logit_normal"
    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = 500
    config.optim.ema_half_life_images = 20_000
    config.optim.ema_warmup_share = 0.1
    config.train.batch_size = 32
    config.train.num_steps = 30_000
    config.train.evaluate_every = 1_000
    config.train.sample_every = 5_000
    config.train.checkpoint_every = 1_000
    config.train.log_every = 100
    config.sample.sampler = "dpmpp_2m"
    config.sample.steps = 20
    config.sample.time_grid = "karras"
    config.sample.guidance = 1.0
    return config
