"""NanoDiT as a DDPM (arXiv:2006.11239) on DeepLense Model II.

    python -m lensjax.main --config=configs/dit_ddpm.py --workdir=runs/dit_ddpm

The network and optimizer of `configs/dit_flow.py` with the path of `configs/unet_ddpm.py`: 29.3
million parameters, a table of 1,000 linear betas, eps prediction, unweighted loss, ancestral
sampling in 1,000 steps without guidance.

Hardware: an accelerator with 40 GB or more; two CPU cores take seconds for one image.
Time and score on an accelerator: not measured.
"""

from ml_collections import ConfigDict

from lensjax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "deeplense/model_ii"
    config.path.name = "vp"
    config.path.betas = "linear"
    config.path.table_steps = 1_000
    config.model.name = "dit"
    config.model.patch_size = 2
    config.model.width = 512
    config.model.depth = 6
    config.model.num_heads = 8
    config.model.prediction = "eps"
    config.loss.space = "eps"
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
    config.sample.sampler = "ddpm"
    config.sample.steps = 1_000
    config.sample.time_grid = "uniform"
    config.sample.guidance = 1.0
    config.sample.batch_size = 16
    return config
