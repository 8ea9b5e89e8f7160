"""Everything in a minute: a tiny network on the mini set, to check an installation.

    python -m lensjax.main --config=configs/smoke.py --workdir=runs/smoke

Hardware: two CPU cores; each mode takes less than 60 seconds. The images show no lenses yet.
"""

from ml_collections import ConfigDict

from lensjax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "deeplense/model_ii_mini"
    config.model.name = "dit"
    config.model.patch_size = 8
    config.model.width = 64
    config.model.depth = 2
    config.model.num_heads = 4
    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = 10
    config.optim.ema_half_life_images = 320
    config.train.batch_size = 16
    config.train.num_steps = 60
    config.train.log_every = 1
    config.train.evaluate_every = 30
    config.train.evaluate_images = 48
    config.train.sample_every = 30
    config.train.checkpoint_every = 20
    config.sample.steps = 4
    config.sample.guidance = 2.0
    config.sample.num_images = 12
    config.sample.batch_size = 12
    config.sample.grid_columns = 4
    config.evaluate.num_images = 24
    config.evaluate.measures = "smooth_fit,shapes,classes"
    config.evaluate.baselines = False
    config.evaluate.while_training = 4
    return config
