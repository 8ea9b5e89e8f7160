"""A UNet with flow matching on DeepLense Model II.

    python -m lensjax.main --config=configs/unet_flow.py --workdir=runs/unet_flow

10.8 million parameters on patches of 2x2 pixels, attention on feature maps of 16 and 8 rows. The
network predicts x0, the loss is the error of the velocity at logit-normal times, and the network
works on the square root of the flux. This combination learns these images fastest
(`benchmarks/results/compare_family.md`). 20 network passes per image.

Hardware: an accelerator. Time and score on an accelerator: not measured.
"""

from ml_collections import ConfigDict

from lensjax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "deeplense/model_ii"
    config.data.scaling = "sqrt"
    config.path.name = "flow"
    config.model.name = "unet"
    config.model.prediction = "x0"
    config.model.patch_size = 2
    config.model.widths = (64, 128, 256)
    config.model.blocks = 2
    config.model.attention_resolutions = (16, 8)
    config.loss.space = "velocity"
    config.loss.time_distribution = "logit_normal"
    config.optim.learning_rate = 3e-4
    config.optim.warmup_steps = 1_000
    config.optim.weight_decay = 0.0
    config.optim.ema_half_life_images = 500_000
    config.optim.ema_more_half_lives_images = (50_000.0, 2_000_000.0)
    config.train.batch_size = 128
    config.train.num_steps = 100_000
    config.sample.sampler = "dpmpp_2m"
    config.sample.steps = 20
    config.sample.time_grid = "karras"
    config.sample.guidance = 1.0
    return config
