"""Inputs that cannot be right: flags, config files, users' images, calls from Python."""

import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from campaign import judge
from campaign.trial import Case, Trial
from campaign.world import write_images

# Flags that are added to a command that would train.
_FLAGS = {
    "unknown_field": ["--config.train.bach_size=8"],
    "unknown_flag": ["--wrkdir=x"],
    "unknown_mode": ["--mode=draw"],
    "word": ["train"],
    "no_number": ["--config.train.num_steps=many"],
    "fraction": ["--config.train.num_steps=1.5"],
    "negative": ["--config.train.batch_size=-1"],
    "zero_rate": ["--config.optim.learning_rate=0"],
    "nan_rate": ["--config.optim.learning_rate=nan"],
    "infinite": ["--config.sample.guidance=inf"],
    "too_many_steps": ["--config.train.num_steps=99999999999"],
    "depth": ["--config.model.depth=1000000"],
    "width": ["--config.model.width=100000000"],
    "batch": ["--config.train.batch_size=1000000"],
    "patch": ["--config.model.patch_size=1000000"],
    "heads": ["--config.model.num_heads=7"],
    "model": ["--config.model.name=dat"],
    "data": ["--config.data.name=deeplense/model_x"],
    "sampler": ["--config.sample.sampler=magic"],
    "dtype": ["--config.model.dtype=int8"],
    "folder": ["--config.data.folder=/nowhere/at/all"],
    "folder_url": ["--config.data.folder=gs://bucket/images"],
    "folder_file": ["--config.data.folder=/etc/hostname"],
    "folder_user": ["--config.data.folder=~nobody_here/x"],
    "workdir_url": ["--workdir=s3://bucket/run"],
    "workdir_file": ["--workdir=/etc/hostname"],
    "workdir_in_file": ["--workdir=/etc/hostname/run"],
    "workdir_empty": ["--workdir="],
    "workdir_proc": ["--workdir=/proc/run"],
    "images_for_train": ["--images=/tmp"],
    "devices": ["--config.parallel.num_devices=64"],
    "hosts": ["--config.parallel.hosts=0"],
    "seed_text": ["--config.seed=one"],
    "seed_huge": ["--config.seed=99999999999999999999"],
    "config_twice": ["--config=/nowhere.py"],
    "config_folder": ["--config=/tmp"],
}
# Config files that cannot be used.
_CONFIGS = {
    "exits": "import sys\nsys.exit(0)\n",
    "exits_inside": "import sys\ndef get_config():\n    sys.exit(3)\n",
    "quits": "import os\ndef get_config():\n    raise SystemExit\n",
    "syntax": "def get_config(:\n",
    "no_function": "x = 1\n",
    "none": "def get_config():\n    pass\n",
    "number": "def get_config():\n    return 5\n",
    "raises": "def get_config():\n    raise RuntimeError('no')\n",
    "interrupts": "def get_config():\n    raise KeyboardInterrupt\n",
    "recursion": "def get_config():\n    return get_config()\n",
    "binary": "\0\1\2",
    "depth": "from lensjax.config import default_config\ndef get_config():\n"
    "    config = default_config()\n    config.data.name = 'deeplense/model_ii_mini'\n"
    "    config.model.depth = 1000000\n    return config\n",
    "plain_dict": "def get_config():\n    return {'train': 5}\n",
}


def _flags(trial: Trial, name: str) -> None:
    run = trial.folder / "run"
    trial.note(" ".join(_FLAGS[name]))
    trial.run([*trial.world.flags(run), *_FLAGS[name]], (judge.REFUSED,))
    if (run / "checkpoints").exists():
        trial.lost("the training began")


def _config_file(trial: Trial, name: str) -> None:
    path = trial.folder / "config.py"
    path.write_text(_CONFIGS[name])
    trial.note(f"a config file: {name}")
    run = trial.folder / "run"
    allowed = (judge.REFUSED, judge.INTERRUPTED) if name == "interrupts" else (judge.REFUSED,)
    trial.run([f"--config={path}", f"--workdir={run}"], allowed)


def _npy(**arrays: np.ndarray) -> Callable[[pathlib.Path], None]:
    def write(folder: pathlib.Path) -> None:
        for name, array in arrays.items():
            np.save(folder / "train" / "a" / f"{name}.npy", array)

    return write


def _text(name: str, content: bytes) -> Callable[[pathlib.Path], None]:
    def write(folder: pathlib.Path) -> None:
        path = folder / "train" / "a" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return write


def _link(folder: pathlib.Path) -> None:
    (folder / "train" / "a" / "loop").symlink_to(folder / "train" / "a" / "loop")
    (folder / "train" / "a" / "gone.npy").symlink_to("/nowhere.npy")


_NPY_HUGE = b"\x93NUMPY\x01\x00v\x00" + (
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }".ljust(117) + b"\n"
)
# What is put among the images of a folder that would be built.
_IMAGES: dict[str, Callable[[pathlib.Path], None]] = {
    "nan": _npy(x=np.full((16, 16), np.nan, np.float32)),
    "shape": _npy(x=np.ones((5, 7), np.float32)),
    "objects": _npy(x=np.array([{"a": 1}, None], object)),
    "text": _npy(x=np.array(["a", "b"])),
    "complex": _npy(x=np.ones((16, 16), np.complex64)),
    "scalar": _npy(x=np.array(3, np.float32)),
    "nothing": _npy(x=np.zeros((0, 16, 16), np.float32)),
    "huge_header": _text("x.npy", _NPY_HUGE),
    "no_npy": _text("x.npy", b"hello"),
    "empty": _text("x.npy", b""),
    "no_npz": _text("x.npz", b"PK\x03\x04 no"),
    "no_hdf5": _text("x.h5", b"\x89HDF\r\n\x1a\n no"),
    "no_fits": _text("x.fits", b"SIMPLE  =                    T" + b" " * 40),
    "pickle": _text("x.npy", b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n."),
    "links": _link,
}


def _image_file(trial: Trial, name: str) -> None:
    folder = trial.folder / "images"
    write_images(folder)
    _IMAGES[name](folder)
    trial.note(f"a bad file among the images: {name}")
    sets = trial.folder / "sets"
    line = trial.world.flags("unused", "build_data", data__folder=folder, data__directory=sets)
    allowed = (judge.REFUSED, 0) if name == "links" else (judge.REFUSED,)
    trial.run(line, allowed)


_GIVEN = (
    "labels_short",
    "labels_text",
    "labels_large",
    "labels_fraction",
    "images_shape",
    "images_nan",
)


def _given(trial: Trial, name: str) -> None:
    """Images or labels from elsewhere that cannot be judged."""
    images = np.abs(np.random.default_rng(0).normal(1, 1, (12, 16, 16, 1))).astype(np.float32)
    labels: np.ndarray = np.arange(12) % 3
    given = trial.folder / "given"
    given.mkdir()
    if name == "labels_short":
        labels = labels[:5]
    elif name == "labels_text":
        labels = np.array(["x"] * 12)
    elif name == "labels_large":
        labels = labels + 40
    elif name == "labels_fraction":
        labels = labels + 0.5
    elif name == "images_shape":
        images = images[:, :5]
    elif name == "images_nan":
        images[0, 0, 0] = np.nan
    np.save(given / "images.npy", images)
    np.save(given / "labels.npy", labels)
    trial.note(f"images to judge: {name}")
    own = trial.folder / "cache"
    line = trial.world.flags(trial.folder / "run", "evaluate", evaluate__cache=own)
    trial.run([*line, f"--images={given / 'images.npy'}"], (judge.REFUSED,))


_LOADED = "generator = lensjax.load({run!r})\n"
# Calls from Python; `{run}` is a finished run, `{classifier}` a finished classifier.
_CALLS = {
    "load_none": "lensjax.load(None)",
    "load_number": "lensjax.load(5)",
    "load_list": "lensjax.load(['a'])",
    "load_nowhere": "lensjax.load('/nowhere')",
    "load_pretrained": "lensjax.load('pretrained/nothing')",
    "load_file": "lensjax.load('/etc/hostname')",
    "step_float": "lensjax.load({run!r}, step=12.0)",
    "step_text": "lensjax.load({run!r}, step='12')",
    "step_missing": "lensjax.load({run!r}, step=7)",
    "step_true": "lensjax.load({run!r}, step=True)",
    "ema_number": "lensjax.load({run!r}, ema=3)",
    "label_unknown": _LOADED + "generator.generate('d')",
    "label_large": _LOADED + "generator.generate(99)",
    "label_ragged": _LOADED + "generator.generate([[0, 1], [2]], num=2)",
    "label_float": _LOADED + "generator.generate([0.5, 1.5], num=2)",
    "label_short": _LOADED + "generator.generate([0, 1], num=3)",
    "label_dict": _LOADED + "generator.generate({{'a': 1}})",
    "num_huge": _LOADED + "generator.generate(num=10**12)",
    "num_negative": _LOADED + "generator.generate(num=-1)",
    "num_float": _LOADED + "generator.generate(num=2.5)",
    "num_text": _LOADED + "generator.generate(num='2')",
    "seed_float": _LOADED + "generator.generate(seed=1.5)",
    "seed_huge": _LOADED + "generator.generate(seed=10**30)",
    "steps_text": _LOADED + "generator.generate(steps='4')",
    "steps_float": _LOADED + "generator.generate(steps=4.5)",
    "guidance_nan": _LOADED + "generator.generate(guidance=float('nan'))",
    "guidance_text": _LOADED + "generator.generate(guidance='strong')",
    "sampler_number": _LOADED + "generator.generate(sampler=3)",
    "unknown_keyword": _LOADED + "generator.generate(colour='red')",
    "log_prob_text": _LOADED + "generator.log_prob('image')",
    "log_prob_shape": _LOADED + "generator.log_prob(np.ones((2, 5, 5, 1)))",
    "log_prob_ragged": _LOADED + "generator.log_prob([[1.0], [1.0, 2.0]])",
    "log_prob_none": _LOADED + "generator.log_prob(None)",
    "classify_text": "lensjax.load({classifier!r}).classify('image')",
    "classify_shape": "lensjax.load({classifier!r}).classify(np.ones((3,)))",
    "classify_objects": "lensjax.load({classifier!r}).classify(np.array([None, 1], object))",
    "data_number": "lensjax.load_data(5, 'train')",
    "data_none": "lensjax.load_data(None, 'train')",
    "data_unknown": "lensjax.load_data('deeplense/model_x', 'train')",
    "data_split": "lensjax.load_data('deeplense/model_ii_mini', 3)",
    "simulate_number": "lensjax.simulate(5, 'cdm', 1)",
    "simulate_huge": "lensjax.simulate('model_ii', 'cdm', 10**12)",
    "simulate_negative": "lensjax.simulate('model_ii', 'cdm', -3)",
    "simulate_text": "lensjax.simulate('model_ii', 'cdm', 'three')",
    "lenstronomy_empty": "lensjax.to_lenstronomy({{}})",
    "lenstronomy_none": "lensjax.to_lenstronomy(None)",
    "lenstronomy_text": "lensjax.to_lenstronomy('row')",
    "lenstronomy_nan": "images, table = lensjax.simulate('model_ii', 'cdm', 3)\n"
    "row = {{name: table[0][name] for name in table.dtype.names}}\n"
    "lensjax.to_lenstronomy({{k: (float('nan') if k == 'theta_E' or 'theta_e' in k.lower() "
    "else v) for k, v in row.items()}})",
    "lenstronomy_class": "images, table = lensjax.simulate('model_ii', 'cdm', 3)\n"
    "row = {{name: table[0][name] for name in table.dtype.names}}\n"
    "lensjax.to_lenstronomy({{**row, 'class_name': 'unheard'}})",
    "config_none": "from lensjax.config import from_config_dict\nfrom_config_dict(None)",
    "config_list": "from lensjax.config import from_config_dict\nfrom_config_dict([1])",
    "config_section": "import lensjax.config\nlensjax.config.from_config_dict({{'train': 5}})",
    "model_none": "from lensjax.models import build_model\nbuild_model(None)",
}


def _python_call(trial: Trial, name: str) -> None:
    paths = {"run": os.fspath(trial.world.run), "classifier": os.fspath(trial.world.classifier)}
    code = _CALLS[name].format(**paths)
    trial.note(code.splitlines()[-1])
    trial.call(code)


def _nothing(trial: Trial, mode: str) -> None:
    """A mode for a folder that is no run."""
    empty = trial.folder / "empty"
    empty.mkdir()
    trial.note(f"--mode={mode} in an empty folder")
    trial.run(trial.world.flags(empty, mode, **_OF_RUN.get(mode, {})), (judge.REFUSED,))


_OF_RUN = {"export": {"export__source": "generated"}}


def _pretrained(trial: Trial, mode: str) -> None:
    """What comes with lensjax is used by its name, and nothing is written into the package."""
    weights = trial.lab.tree / "lensjax" / "weights"
    before = judge.tree_digest(weights)
    out = trial.folder / "out"
    name = "model_ii" if mode != "classify" else "lens_classifier"
    config = weights / name / "config.json"
    values = json.loads(config.read_text())["config"]
    file = trial.folder / "config.py"
    file.write_text(
        "import json\nfrom ml_collections import ConfigDict\nfrom lensjax.config import "
        "default_config\ndef get_config():\n    config = default_config()\n"
        f"    saved = json.loads({json.dumps(json.dumps(values))})\n"
        "    for section, fields in saved.items():\n"
        "        if not isinstance(fields, dict):\n            config[section] = fields\n"
        "            continue\n"
        "        for name, value in fields.items():\n"
        "            if section in config and name in config[section] and value is not None:\n"
        "                value = tuple(value) if isinstance(value, list) else value\n"
        "                config[section][name] = value\n"
        "    return config\n"
    )
    line = [f"--config={file}", f"--mode={mode}", f"--workdir=pretrained/{name}"]
    line += [f"--output={out}", "--config.sample.num_images=2", "--config.sample.batch_size=2"]
    if mode == "classify":
        images = trial.folder / "images.npy"
        np.save(images, np.ones((20, 64, 64), np.float32))
        line.append(f"--images={images}")
    trial.note(f"--workdir=pretrained/{name} --mode={mode} --output=...")
    ended = trial.run([part for part in line if mode == "sample" or "sample." not in part])
    if judge.tree_digest(weights) != before:
        trial.lost("something was written into the package")
    if ended.status == 0 and not out.exists():
        trial.lost("nothing is in --output")


_KINDS: tuple[tuple[str, Iterable[str], str | None, Callable[[Trial, str], None], int], ...] = (
    ("flags", _FLAGS, "train", _flags, 4),
    ("config file", _CONFIGS, "train", _config_file, 4),
    ("image file", _IMAGES, "build_folder", _image_file, 4),
    ("Python call", _CALLS, "load", _python_call, 4),
    ("given images", _GIVEN, "evaluate", _given, 6),
    ("flags", ("sample", "evaluate", "classify", "export"), None, _nothing, 4),
    ("pretrained", ("sample", "classify"), None, _pretrained, 0),
)


def cases() -> Iterator[Case]:
    """Bad inputs by their kind; `--short` tries every so many of each."""
    for kind, names, mode, action, every in _KINDS:
        for number, name in enumerate(names):
            yield Case(
                f"{action.__name__.strip('_')}_{name}",
                kind,
                mode or name,
                lambda trial, action=action, name=name: action(trial, name),  # type: ignore[misc]
                short=bool(every) and number % every == 0,
            )
