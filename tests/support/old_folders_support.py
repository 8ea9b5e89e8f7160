"""The folders that lensjax 0.1.0 wrote, and the commands that go on with them."""

import pathlib
import tarfile

from run_support import DATA

WRITTEN = DATA / "written_by_0_1_0"
GENERATOR = [
    "--config=configs/smoke.py",
    "--config.model.width=8",
    "--config.model.depth=1",
    "--config.model.num_heads=2",
    "--config.train.batch_size=12",
    "--config.optim.learning_rate=0.03",
    "--config.optim.warmup_steps=1",
    "--config.optim.ema_half_life_images=12",
    "--config.train.evaluate_images=6",
    "--config.train.evaluate_every=2",
    "--config.train.sample_every=100",
    "--config.train.checkpoint_every=2",
    "--config.train.num_steps=6",
    "--config.sample.num_images=3",
    "--config.sample.batch_size=3",
    "--config.evaluate.num_images=2",
    # These may differ on a resume; without them there is less to compile.
    "--config.evaluate.measures=smooth_fit",
    "--config.evaluate.while_training=0",
]
CLASSIFIER = [
    "--config=configs/smoke_classifier.py",
    "--config.model.widths=(8,)",
    "--config.model.num_features=8",
    "--config.train.batch_size=9",
    "--config.optim.learning_rate=0.03",
    "--config.optim.warmup_steps=1",
    "--config.train.evaluate_images=9",
    "--config.train.evaluate_every=2",
    "--config.train.checkpoint_every=4",
    "--config.train.num_steps=6",
    "--config.evaluate.num_images=3",
]


def unpack(folder: pathlib.Path) -> None:
    """Writes `sets`, `generator` and `classifier` into a folder, as 0.1.0 left them."""
    with tarfile.open(WRITTEN / "folders.tar.xz") as archive:
        archive.extractall(folder, filter="data")
