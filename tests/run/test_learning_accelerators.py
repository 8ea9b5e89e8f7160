"""Train steps and samplers of the configurations lower for accelerators that are not there."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from lensjax.config import from_config_dict
from lensjax.data.augmentation import make_augment_fn
from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.data.dataset import DatasetInfo, LensSplit
from lensjax.data.feed import DeviceFeed
from lensjax.data.fresh import FreshFeed
from lensjax.data.pipeline import make_batch_fn
from lensjax.data.scaling import Scaling
from lensjax.diffusion.samplers import SAMPLERS
from lensjax.inference.sampling import Weights, make_sample_fn
from lensjax.models import attention
from lensjax.run import learning
from lensjax.training.tasks import task_of

pytestmark = pytest.mark.nightly

CONFIGS = (
    *("dit_flow", "dit_fast", "dit_ddpm", "unet_flow", "unet_fast", "unet_ddpm", "mae_vit"),
    *("quickstart", "cpu_fast"),
    *("classifier_cnn", "classifier_rescnn", "classifier_resnet18", "classifier_vit"),
)
PLATFORMS = ("cuda", "tpu")
# Their names are no promise of JAX, so that an export of them must be asked for.
CUDNN = ("__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward")


def config_of(name):
    return from_config_dict(importlib.import_module(name).get_config())


def lowered(function, platform, arguments):
    calls = [jax.export.DisabledSafetyCheck.custom_call(name) for name in CUDNN]
    export = jax.export.export(jax.jit(function), platforms=[platform], disabled_checks=calls)
    return export(*arguments)


def shape_of(config):
    side = SIMULATED_SETS[config.data.name].survey.num_pixels
    return side, side, 1


def split_of(config):
    images = np.zeros((6, *shape_of(config)), np.float32)
    info = DatasetInfo(
        name="synthetic",
        fingerprint="synthetic",
        class_names=tuple(f"class {number}" for number in range(config.model.num_classes)),
        parameter_names=(),
        split_sizes={"train": 6},
        image_shape=shape_of(config),
        flux_unit="counts",
        minimum=0.0,
        maximum=1.0,
    )
    return LensSplit(images, np.zeros(6, np.int32), np.zeros((6, 0), np.float32), info)


def step_of(config):
    spread, split, shape = learning.build_spread(config), split_of(config), shape_of(config)
    at_once = config.train.steps_per_dispatch
    feed = (
        FreshFeed(config.data.name, config.seed, spread, at_once)
        if config.data.fresh
        else DeviceFeed(split, config.seed, spread, at_once)
    )
    augment_fn = make_augment_fn(config.data.augmentation, config.data.shift_pixels, shape)
    batch_fn = make_batch_fn(
        feed.batch, Scaling("linear", 0.0, 1.0), augment_fn, config.seed, masked=False
    )
    loss_fn = task_of(config).loss_fn(split)
    step_fn = learning.build_train_step(config, loss_fn, batch_fn, spread)
    return feed.stack(step_fn), (learning.abstract_state(config, shape), *feed.arguments(0))


@pytest.fixture(params=PLATFORMS)
def platform(request, monkeypatch):
    """An accelerator, which attention takes to be there, and cuDNN 9 for `cuda`."""
    monkeypatch.setattr(attention, "platform", lambda: request.param)
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91_000)
    return request.param


@pytest.mark.parametrize("name", CONFIGS)
def test_a_train_step_lowers(name, platform):
    step_fn, arguments = step_of(config_of(name))
    exported = lowered(step_fn, platform, arguments)
    assert exported.platforms == (platform,)
    uses_cudnn = platform == "cuda" and name in ("dit_fast", "unet_fast")
    assert (CUDNN[1] in exported.mlir_module()) == uses_cudnn


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", ["dit_flow", "dit_fast", "unet_fast"])
def test_a_sampler_lowers(name, sampler, platform):
    config, shape = config_of(name), shape_of(config_of(name))
    settings = dataclasses.replace(config.sample, sampler=sampler)
    sample_fn = make_sample_fn(config, Scaling("linear", 0.0, 1.0), shape, settings)
    weights = Weights(learning.abstract_state(config, shape).params)
    numbers = jax.ShapeDtypeStruct((8,), jnp.int32)
    arguments = weights, jax.ShapeDtypeStruct((), jnp.uint32), numbers, numbers
    exported = lowered(sample_fn, platform, arguments)
    assert exported.platforms == (platform,)
    assert exported.out_avals[0].shape == (8, *shape)
