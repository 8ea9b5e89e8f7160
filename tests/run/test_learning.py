"""The state of a configuration: what fits no memory is refused before it is made."""

import pytest
from run_support import tiny_config

from lensjax.devices.mesh import all_devices
from lensjax.errors import ConfigError
from lensjax.run import learning

SHAPE = (16, 16, 1)


@pytest.mark.parametrize(
    ("model", "field", "words"),
    [
        ({"width": 2**16}, "model.width: got 65536", "model.depth=1, model.mlp_ratio=4"),
        (
            {"name": "unet", "widths": (2**16, 2**16)},
            "model.widths: got (65536, 65536)",
            "model.blocks=1",
        ),
    ],
)
def test_a_state_that_fits_no_memory_is_refused_by_its_field(model, field, words):
    config = tiny_config(model=model)
    with pytest.raises(ConfigError) as caught:
        learning.check_memory(config, learning.abstract_state(config, SHAPE), all_devices(most=1))
    assert str(caught.value).startswith(field)
    assert words in str(caught.value)


def test_a_state_that_fits_is_taken():
    config = tiny_config()
    learning.check_memory(config, learning.abstract_state(config, SHAPE), all_devices(most=1))
