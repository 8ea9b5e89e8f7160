"""A small residual network that classifies the three kinds of dark matter, with and without noise.

    python -m lensjax.main --config=configs/classifier_rescnn.py --workdir=runs/rescnn

Two fifths of the training images get Euclid's noise, which is redrawn each time.
"""

from ml_collections import ConfigDict

from lensjax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "deeplense/model_ii"
    config.data.scaling = "asinh"
    config.data.augmentation = "rotate_180"
    config.model.name = "rescnn"
    config.model.patch_size = 4
    config.model.widths = (32, 64)
    config.model.blocks = 2
    config.model.num_features = 128
    config.model.cells = 4
    config.model.dropout = 0.2
    config.classify.noise_share = 0.4
    config.optim.learning_rate = 2e-3
    config.optim.warmup_steps = 500
    config.optim.weight_decay = 1e-4
    config.optim.ema_half_life_images = 20_000
    config.train.batch_size = 48
    config.train.num_steps = 15_000
    config.train.log_every = 200
    config.train.evaluate_every = 2_000
    config.train.evaluate_images = 3_000
    config.train.checkpoint_every = 1_000
    return config
