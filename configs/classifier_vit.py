"""A small vision transformer, from new weights or from those of configs/mae_vit.py.

    python -m lensjax.main --config=configs/classifier_vit.py --workdir=runs/vit
    python -m lensjax.main --config=configs/classifier_vit.py --workdir=runs/vit --mode=evaluate

With `--config.classify.start_from=runs/mae` it starts with the encoder of a masked autoencoder. If
you also set `--config.classify.train_encoder=False`, only the last layer is trained (a linear
probe). `--config.classify.label_share=0.01` trains on 1 % of the labels.

Hardware: intended for one accelerator, where it was not measured. Scores on two CPU cores:
benchmarks/results/labels.md.
"""

from ml_collections import ConfigDict

from lensjax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "deeplense/model_ii"
    config.data.scaling = "asinh"
    config.data.augmentation = "rotate_180"
    config.model.name = "vit"
    config.model.patch_size = 8
    config.model.width = 128
    config.model.depth = 6
    config.model.num_heads = 4
    config.model.mlp_ratio = 4
    config.model.dropout = 0.1
    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = 500
    config.optim.weight_decay = 0.05
    config.optim.ema_half_life_images = 50_000
    config.classify.patience = 10
    config.train.batch_size = 128
    config.train.num_steps = 30_000
    config.train.log_every = 100
    config.train.evaluate_every = 1_000
    config.train.evaluate_images = 4_500
    config.train.checkpoint_every = 1_000
    return config
