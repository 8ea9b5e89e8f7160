"""Sampling, lensjax beside PyTorch: images a second, MFU, peak memory and compile time.

    python benchmarks/sample.py [--torch-python=PYTHON] [--guidance=5]
    python benchmarks/sample.py --width=64 --depth=1 --patch=8 --rounds=2   # tries the program

Both frameworks draw with NanoDiT of `configs/dit_flow.py` by Euler's rule at 20 network passes an
image, every evaluation counted: with guidance that is 10 steps of two passes. On a CPU a round is 4
images in float32; on a GPU it is 1,000, in batches of 250, with TF32 and with bfloat16. Images end
on the host. Results go to `sample.json` in `benchmarks/results/` under the device's name.
"""

import argparse

import networks
import numpy as np
import pairs
from flops import sample_flops
from pairs import LENSJAX, TORCH, Children, Numbers

from lensjax.config import Config, to_dict
from lensjax.config.diffusion import sample_times
from lensjax.errors import ConfigError
from lensjax.inference.sampling import passes_per_image
from lensjax.run.networks import build_path

BATCH = {"cpu": 4, "gpu": 250}
IMAGES = {"cpu": 4, "gpu": 1000}


def config_for(options: argparse.Namespace, platform: str, precision: str) -> Config:
    """The checked configuration of a precision.

    Raises:
      ConfigError: for passes that guidance cannot divide, or a network that PyTorch does not have.
    """
    passes_a_step = 1 if options.guidance == 1 else 2
    if options.passes % passes_a_step:
        raise ConfigError(
            "--passes", options.passes, "allowed: an even number with guidance, two passes a step"
        )
    fields = {
        "sample.batch_size": options.batch or BATCH[platform],
        "sample.steps": options.passes // passes_a_step,
        "sample.guidance": options.guidance,
    }
    return networks.config_for(options, precision, fields)


def measure(
    children: Children, options: argparse.Namespace, platform: str, precision: str
) -> Numbers:
    """Measures sampling in one precision."""
    config = config_for(options, platform, precision)
    shape, num = (options.side, options.side, 1), options.images or IMAGES[platform]
    passes = passes_per_image(config, config.sample)
    common = {
        "config": to_dict(config),
        "precision": precision,
        "image_shape": shape,
        "num_images": num,
        "compile_mode": options.compile_mode,
        "times": np.asarray(sample_times(build_path(config), config.sample)).tolist(),
    }
    flops = num * sample_flops(to_dict(config)["model"], shape, passes)
    settings = {LENSJAX: common, TORCH: common}
    case = pairs.measured(children, "sample", settings, 1, options, flops, settle=False)
    speed = {name: num / seconds for name, seconds in case["median_seconds"].items()}
    print(pairs.shown_case(case, speed), flush=True)
    for name, seconds in case["median_seconds"].items():
        print(f"{name}: {num:,} images at {passes} passes in {seconds:.2f} s", flush=True)
    return case | {
        "batch_size": config.sample.batch_size,
        "side": options.side,
        "num_images": num,
        "passes": passes,
        "guidance": config.sample.guidance,
        "images_per_second": speed,
        "config": to_dict(config),
    }


def main() -> None:
    """Measures each precision."""
    parser = pairs.parser(__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, help="a round; 4 on a CPU, 1,000 on a GPU")
    parser.add_argument("--passes", type=int, default=20, help="of the network, an image")
    parser.add_argument("--guidance", type=float, default=1.0, help="1 for none")
    options = parser.parse_args()
    pairs.run(options, "sample.json", measure)


if __name__ == "__main__":
    main()
