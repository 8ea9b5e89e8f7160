"""Every public name can be imported, and those of 0.1.0 for one more release."""

import ast
import importlib
import json
import re
import warnings

import pytest
from run_support import ROOT, run_python

import lensjax

FOLDERS = ("lensjax", "configs", "tests", "benchmarks")
# Of the contract: what scripts of other people import.
PUBLIC = {
    "lensjax": (
        "LensClassifier LensGenerator UserError __version__ load load_data simulate to_lenstronomy"
    ),
    "lensjax.config": "Config ConfigError default_config from_config_dict to_dict",
    "lensjax.models": "build_model",
    "lensjax.errors": "UserError ConfigError DataError WorkdirError CheckpointError RequestError",
    "lensjax.data": "simulator raytracing surveys catalogue parameters",
    "lensjax.data.simulator": "simulate sample_lens smooth_lens add_noise CLASS_NAMES",
    "lensjax.data.raytracing": "Lens render",
    "lensjax.data.surveys": "SURVEYS Survey",
    "lensjax.diffusion": "paths samplers losses guidance schedules time_grids preconditioning",
    "lensjax.metrics": (
        "axion_fit baselines c2st classification corruptions fitting forward frechet free_fit "
        "inception_features intervals kernel lensing memory nearest neighbours noise "
        "potential_fit ring_radius shapes spectra starts two_sample variety"
    ),
}
# Names that users of 0.1.0 could have taken from a module, by its name then.
OLD = {
    "arrays": "simulate load_data",
    "checkpoint": "Checkpoints CheckpointError",
    "classifier": "LensClassifier load_classifier",
    "generate": "LensGenerator load_generator",
    "guidance": "Guidance guide make_denoiser Condition ApplyFn",
    "hosts": "is_main HostError",
    "likelihood": "LogProb",
    "loading": "load",
    "losses": "Batch Places LossSettings make_loss_fn LOSS_WEIGHTS",
    "metrics.features": "LensExtractor Extractor",
    "metrics.reference": "cached_json cached_features cache_folder",
    "optim": "make_schedule build_optimizer ema_decay ema_half_lives RAW_PARAMS",
    "paths": "FlowPath Path Estimate estimate usable PREDICTIONS",
    "preconditioning": "precondition",
    "samplers": "SAMPLERS SamplerSettings DenoiseFn",
    "schedules": "TablePath EDMPath LinearPath CosinePath build_path ddpm_betas",
    "time_grids": "time_grid check_times TimeGridError",
    "train": "train TrainingError",
    "trained": "Trained restore RequestError",
    "workdir": "WorkdirError read_json write_json load_config CONFIG_FILE",
}


def _get(module: str, name: str) -> object:
    try:
        return getattr(importlib.import_module(module), name)
    except AttributeError:  # a module that nobody has imported yet
        return importlib.import_module(f"{module}.{name}")


def test_every_public_name_is_there():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for module, names in PUBLIC.items():
            for name in names.split():
                assert _get(module, name) is not None


def test_all_is_what_the_package_gives():
    for name in lensjax.__all__:
        assert getattr(lensjax, name) is not None
        assert name in dir(lensjax)


WARNINGS = """
import importlib, json, re, sys, warnings
found = {}
for old, names in json.loads(sys.argv[1]).items():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(f"from lensjax.{old} import {', '.join(names)}\\nimport lensjax.{old} as module")
    (warning,) = [one for one in caught if one.category is DeprecationWarning]
    told, home = re.findall(r"lensjax\\.[\\w.]*\\w", str(warning.message))[:2]
    assert told == f"lensjax.{old}"
    new = importlib.import_module(home)
    assert sys.modules[home] is new and new.__spec__.name == home
    assert any(getattr(new, name, None) is getattr(module, name) for name in names), old
    assert not hasattr(module, "nothing_of_this_name")
    found[old] = [str(warning.message), warning.filename]
print(json.dumps(found))
"""


def test_an_old_module_warns_once_where_it_is_imported_and_gives_the_same_objects():
    done = run_python(
        "-c", WARNINGS, json.dumps({old: names.split() for old, names in OLD.items()})
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == OLD.keys()
    for old, (message, filename) in found.items():
        assert "lensjax 0.3.0" in message, old
        assert filename == "<string>"  # the line of the user


def test_the_table_of_old_modules_is_tested_whole():
    assert OLD.keys() == lensjax._MOVED.keys()


def test_what_never_was_there_is_refused_as_ever():
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'lensjax\.sampler'"):
        importlib.import_module("lensjax.sampler")
    with pytest.raises(AttributeError, match="module 'lensjax' has no attribute 'sampler'"):
        _ = lensjax.sampler


def test_lensjax_itself_uses_no_old_name():
    """No file of the repository imports a module by its old name."""
    named = re.compile(rf"from lensjax import|lensjax\.(?:{'|'.join(map(re.escape, OLD))})\b")
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if named.search(text) else ():
            if isinstance(node, ast.ImportFrom) and node.module:
                imported = {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
            elif isinstance(node, ast.Import):
                imported = {one.name for one in node.names}
            else:
                continue
            assert not imported & {f"lensjax.{old}" for old in OLD}, (path, node.lineno)
