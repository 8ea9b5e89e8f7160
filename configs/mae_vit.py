"""Pre-training without labels: a masked autoencoder for the encoder of configs/classifier_vit.py.

    python -m lensjax.main --config=configs/mae_vit.py --workdir=runs/mae

Three quarters of the patches are hidden; the pictures in `samples/` show how the network
reconstructs them. Hardware: intended for one accelerator, where it was not measured. Scores on two
CPU cores: benchmarks/results/labels.md.
"""

from ml_collections import ConfigDict

from lensjax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "deeplense/model_ii"
    config.data.scaling = "asinh"
    config.data.augmentation = "rotate_180"
    config.model.name = "mae"
    config.model.patch_size = 8
    config.model.width = 128
    config.model.depth = 6
    config.model.num_heads = 4
    config.model.mlp_ratio = 4
    config.model.mask_share = 0.75
    config.model.decoder_width = 64
    config.model.decoder_depth = 2
    config.model.decoder_heads = 4
    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = 1_000
    config.optim.weight_decay = 0.05
    config.optim.b2 = 0.95
    config.optim.ema_half_life_images = 50_000
    config.train.batch_size = 128
    config.train.num_steps = 100_000
    config.train.log_every = 100
    config.train.evaluate_every = 5_000
    config.train.evaluate_images = 510
    config.train.sample_every = 10_000
    config.train.checkpoint_every = 2_500
    return config
