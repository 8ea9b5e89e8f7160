"""A classifier in a minute: a tiny network on the mini set, to check an installation.

    python -m lensjax.main --config=configs/smoke_classifier.py --workdir=runs/smoke_classifier

Hardware: two CPU cores; each mode takes less than 60 seconds. It does not learn anything yet.
"""

from ml_collections import ConfigDict

from lensjax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "deeplense/model_ii_mini"
    config.data.scaling = "asinh"
    config.data.augmentation = "rotate_180"
    config.model.name = "rescnn"
    config.model.patch_size = 8
    config.model.widths = (16,)
    config.model.blocks = 1
    config.model.num_features = 16
    config.model.dropout = 0.1
    config.optim.learning_rate = 3e-3
    config.optim.warmup_steps = 10
    config.optim.ema_half_life_images = 320
    config.classify.label_smoothing = 0.05
    config.train.batch_size = 48
    config.train.num_steps = 60
    config.train.log_every = 1
    config.train.evaluate_every = 20
    config.train.evaluate_images = 150
    config.train.checkpoint_every = 20
    config.evaluate.num_images = 100
    config.evaluate.baselines = False
    return config
