"""ResNet18 with a stem for 64x64 pixels, the usual network for comparisons in this field.

    python -m lensjax.main --config=configs/classifier_resnet18.py --workdir=runs/resnet18

The same command with `--mode=evaluate` gives its scores.

Hardware: one accelerator. Aim: 97 % and a macro AUC of 0.998 on the test split (published: 95 to
97 %, 0.99); not measured. For images of about 224 pixels set model.stem to imagenet.
"""

from ml_collections import ConfigDict

from lensjax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "deeplense/model_ii"
    config.data.scaling = "asinh"
    config.data.augmentation = "rotate_180"
    config.model.name = "resnet18"
    config.model.stem = "small"
    config.model.dropout = 0.1
    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = 500
    config.optim.weight_decay = 1e-2
    config.optim.ema_half_life_images = 100_000
    config.classify.patience = 10
    config.train.batch_size = 128
    config.train.num_steps = 20_000
    config.train.log_every = 100
    config.train.evaluate_every = 1_000
    config.train.evaluate_images = 4_500
    config.train.checkpoint_every = 1_000
    return config
