"""Trains networks that generate gravitational-lens images, samples from them, and scores them.

python -m lensjax.main --config=configs/NAME.py --workdir=DIR [--mode=MODE]
    [--config.section.field=value ...]

An installed lensjax also has the command `lensjax`, which does the same.
"""

# Flags, process set-up, hand over to a mode; no logic belongs here.

from lensjax import signals

if __name__ == "__main__":
    signals.end_on_signals()  # the imports below and those of `run` take a second or more

import logging as std_logging
import os
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from lensjax.cli import command_line
from lensjax.errors import UserError, printable
from lensjax.files.user_paths import expanded

MODES = ("train", "sample", "evaluate", "classify", "export", "build_data")

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, such as configs/smoke.py.")
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run: checkpoints, metrics, samples; or pretrained/NAME for a network that comes "
    "with lensjax. Not needed for build_data, nor to export a data set to --config.export.folder.",
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Folder for the results of --mode=sample, evaluate, classify and export; by default the "
    "workdir, and runs/NAME with --workdir=pretrained/NAME.",
)
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    MODES,
    "train: trains, or resumes the run in the workdir; builds a missing simulated data set first; "
    "exits with status 75 if a signal stopped it before its end. sample: draws images from "
    "the newest checkpoint. evaluate: compares drawn images, or those of --images, with real ones; "
    "scores a classifier on the test split. classify: predicts the class of each image of "
    "--images. export: writes the data set, or drawn images, as npy, HDF5 or FITS files "
    "(--config.export.*). build_data: only builds the data set.",
)
_IMAGES = flags.DEFINE_string(
    "images",
    None,
    "A file or a folder of .npy, .npz, HDF5 or FITS files, each with one image or a stack. For "
    "--mode=evaluate: images from any generator, with labels.npy beside them or "
    "--config.evaluate.labels=FILE; without --images, images are drawn from the run. For "
    "--mode=classify: the images to be classified.",
)


_THREADED = ("orbax", "clu", "asyncio")


class _Printable(std_logging.Formatter):
    def format(self, record: std_logging.LogRecord) -> str:
        return printable(super().format(record))


def _set_up_logging() -> None:
    """Shows lensjax's own lines; Orbax alone would write dozens for each checkpoint."""
    from lensjax.devices.progress import write_above_bars

    logging.use_absl_handler()
    handler = logging.get_absl_handler()
    handler.setFormatter(_Printable("%(asctime)s %(message)s", "%H:%M:%S"))
    package = os.path.dirname(os.path.abspath(__file__)) + os.sep

    def is_shown(record: std_logging.LogRecord) -> bool:
        # What threads of Orbax and CLU meet is raised in lensjax too, in one line.
        theirs = any(os.sep + name + os.sep in record.pathname for name in _THREADED)
        ours = record.pathname.startswith(package)
        return ours or (record.levelno >= std_logging.ERROR and not theirs)

    handler.addFilter(is_shown)
    write_above_bars(handler.python_handler)
    logging.set_verbosity(logging.INFO)


def main(arguments: list[str]) -> None:
    """Runs one mode; an error that a user can put right ends it with one message."""
    from lensjax.cli import modes
    from lensjax.cli.places import WITH_OUTPUT
    from lensjax.config import from_config_dict

    if len(arguments) > 1:
        command_line.fail(
            f"unexpected argument {arguments[1]!r}; set fields with --config.section.field=value"
        )
    if _CONFIG.value is None:
        command_line.fail("--config is missing; for example --config=configs/smoke.py")
    _set_up_logging()
    try:
        config = from_config_dict(_CONFIG.value)
        if not _WORKDIR.value and modes.needs_workdir(_MODE.value, config):
            command_line.fail(
                f"--workdir is missing; --mode={_MODE.value} needs the folder of the run"
            )
        if _IMAGES.value is not None and _MODE.value not in ("evaluate", "classify"):
            command_line.fail(
                f"--images is for --mode=evaluate and classify; got --mode={_MODE.value}"
            )
        if _OUTPUT.value is not None and _MODE.value not in WITH_OUTPUT:
            command_line.fail(
                f"--output is for --mode={', '.join(WITH_OUTPUT)}; got --mode={_MODE.value}"
            )
        images = expanded(_IMAGES.value, "--images") if _IMAGES.value else None
        output = expanded(_OUTPUT.value, "--output") if _OUTPUT.value else None
        workdir = expanded(_WORKDIR.value or ".", "--workdir")
        status = modes.run(_MODE.value, config, workdir, images, output)
    except UserError as error:
        command_line.fail(str(error))
    sys.exit(status)


def run() -> None:
    """Runs the command line of this process; the console script `lensjax` calls this."""
    if __name__ != "__main__":
        signals.end_on_signals()
    command_line.use_utf8()
    # For --help, absl takes text and flags from the file that was started.
    sys.modules["__main__"].__doc__ = __doc__
    for name in ("config", "workdir", "output", "mode", "images"):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
    with command_line.leaving():
        app.run(main, flags_parser=command_line.parse)


if __name__ == "__main__":
    run()
