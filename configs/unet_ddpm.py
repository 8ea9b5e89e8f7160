"""DDPM (arXiv:2006.11239) with a UNet on 150x150 images.

    python -m lensjax.main --config=configs/unet_ddpm.py --workdir=runs/unet_ddpm

trains on the noisy images of DeepLense Model I with their classes. To train without labels on a
flat folder of your own, such as the 10,000 images of the task that started this field:

    python -m lensjax.main --config=configs/unet_ddpm.py --workdir=runs/unet_ddpm
        --config.data.name=deeplense/folder --config.data.folder=FOLDER --config.model.num_classes=0

As published: 1,000 steps with linear betas, eps prediction, unweighted loss, Adam at 2e-4 after a
warm-up of 5,000 steps, EMA 0.9999, ancestral sampling. Our own choices: a network of 14.7 million
parameters for 150x150 pixels, 125,000 steps of 64 images, the warm-up of the EMA. For 20 passes
instead of 1,000: `--config.sample.sampler=dpmpp_2m --config.sample.steps=20
--config.sample.time_grid=karras`.

Hardware: an accelerator. Time and score on an accelerator: not measured. Two CPU cores can train a
smaller network that predicts x0. The flags

    --config.model.patch_size=5 --config.model.widths=48,96,144 --config.model.blocks=1
    --config.model.attention_resolutions=8 --config.model.prediction=x0 --config.loss.space=v
    --config.optim.learning_rate=1e-3 --config.optim.warmup_steps=200
    --config.optim.ema_half_life_images=3000 --config.optim.ema_warmup_share=0.1
    --config.train.batch_size=8

gave docs/unet_ddpm.png (1,000 passes per image) after 1,900 steps on 10,000 unlabelled images of
`model_i_noisy`, in 20 minutes with other programs running. The same network with eps prediction
showed no rings after 2,000 steps.
"""

from ml_collections import ConfigDict

from lensjax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "deeplense/model_i_noisy"
    config.data.scaling = "linear"
    config.path.name = "vp"
    config.path.betas = "linear"
    config.path.table_steps = 1_000
    config.model.name = "unet"
    config.model.prediction = "eps"
    config.model.patch_size = 1
    config.model.widths = (64, 128, 192, 256)
    config.model.blocks = 2
    config.model.attention_resolutions = (19,)
    config.loss.space = "eps"
    config.loss.time_distribution = "uniform"
    config.optim.learning_rate = 2e-4
    config.optim.warmup_steps = 5_000
    config.optim.learning_rate_floor = 1.0
    config.optim.weight_decay = 0.0
    config.optim.ema_half_life_images = 6_931 * 64
    config.train.batch_size = 64
    config.train.num_steps = 125_000
    config.sample.sampler = "ddpm"
    config.sample.steps = 1_000
    config.sample.time_grid = "uniform"
    config.sample.guidance = 1.0
    config.sample.batch_size = 16
    return config
