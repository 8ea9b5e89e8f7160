"""A plain convolutional classifier, after Davies et al. 2019, arXiv:1905.04303.

    python -m lensjax.main --config=configs/classifier_cnn.py --workdir=runs/cnn
    python -m lensjax.main --config=configs/classifier_cnn.py --workdir=runs/cnn --mode=evaluate

Hardware: intended for one accelerator, where it was not measured. Scores on two CPU cores:
benchmarks/results/classifiers.md.
"""

from ml_collections import ConfigDict

from lensjax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "deeplense/model_ii"
    config.data.scaling = "asinh"
    config.data.augmentation = "rotate_180"
    config.model.name = "cnn"
    config.model.widths = (24, 48, 64, 64)
    config.model.num_features = 128
    config.model.cells = 3
    config.model.dropout = 0.1
    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = 500
    config.optim.weight_decay = 1e-4
    config.optim.ema_half_life_images = 50_000
    config.classify.patience = 10
    config.train.batch_size = 128
    config.train.num_steps = 20_000
    config.train.log_every = 100
    config.train.evaluate_every = 1_000
    config.train.evaluate_images = 4_500
    config.train.checkpoint_every = 1_000
    return config
