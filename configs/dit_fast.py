"""The best DiT for ten minutes of one H100 or H200.

    python -m lensjax.main --config=configs/dit_fast.py --workdir=runs/dit_fast

NanoDiT's 29.3 million parameters on patches of 4x4 pixels. These cost 32 GFLOP per training image,
where patches of 2x2 cost 155, so the network sees five times as many images in the same time. As in
`configs/unet_flow.py`, it predicts x0, the loss is the error of the velocity at stratified
logit-normal times, and it works on the square root of the flux. Matrix products and
attention (cuDNN's) are in bfloat16, parameters and averages in float32; ten steps per dispatch.

4.6 million images at 32.4 GFLOP are 149 PFLOP: 430 seconds at 350 TFLOP/s, which is 35 % of the
rate of such a GPU in bfloat16 by its data sheet. The rest of the ten minutes is for compilation,
validation and pictures.

Hardware: one H100 or H200. Time and score: not measured, only estimated as above.
"""

from ml_collections import ConfigDict

from lensjax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "deeplense/model_ii"
    config.data.scaling = "sqrt"
    config.model.name = "dit"
    config.model.prediction = "x0"
    config.model.patch_size = 4
    config.model.dtype = "bfloat16"
    config.loss.space = "velocity"
    config.loss.time_distribution = "logit_normal"
    config.loss.stratified = True
    config.optim.learning_rate = 4e-4
    config.optim.warmup_steps = 500
    config.optim.weight_decay = 0.0
    config.optim.b2 = 0.99
    config.optim.ema_half_life_images = 50_000
    config.train.batch_size = 512
    config.train.num_steps = 9_000
    config.train.steps_per_dispatch = 10
    config.train.log_every = 100
    config.train.evaluate_every = 3_000
    config.train.sample_every = 4_500
    config.train.checkpoint_every = 1_500
    config.train.keep_every = 1_500
    return config
