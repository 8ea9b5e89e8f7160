"""What an older lensjax has saved: what is added, dropped or replaced, and what may differ."""

import pytest
from absl.testing import absltest
from run_support import TINY, nested

from lensjax.config import (
    Config,
    ConfigError,
    brought_up_to_date,
    check_overrides,
    differences,
    flat,
    from_config_dict,
    saved,
    to_dict,
)
from lensjax.config.whole import RETIRED_CHOICES, RETIRED_FIELDS, facts_of_fields

DEFAULTS = flat(to_dict(Config()))
DEFAULTS_AS_GIVEN = flat(nested({}))  # tuples stay tuples
# The Contract's list, not read from the fields.
RESUMABLE_SECTIONS = {"parallel", "sample", "evaluate", "export"}
RESUMABLE = {
    "model.attention",
    "model.remat",
    "train.accumulate_steps",
    "train.num_steps",
    "train.log_every",
    "train.evaluate_every",
    "train.evaluate_images",
    "train.sample_every",
    "train.checkpoint_every",
    "train.keep_last",
    "train.keep_every",
    "data.folder",
    "data.directory",
    "data.placement",
    "data.file_memory_gib",
    "data.file_seconds",
    "classify.layout",
    "classify.planes",
    "classify.image_scale",
    "classify.image_factor",
    "classify.resize",
    "classify.batch_size",
}
# Fields that runs of older versions lack.
YOUNGER = {
    "data.exclude_source_disc",
    "model.attention",
    "model.remat",
    "train.accumulate_steps",
    "train.steps_per_dispatch",
    *("optim.schedule", "optim.cooldown_share"),
    *(f"model.{name}" for name in ("num_features", "cells", "dropout", "stem", "mask_share")),
    *(f"model.decoder_{name}" for name in ("width", "depth", "heads")),
    "model.normalise_patches",
    *(path for path in DEFAULTS if path.startswith("classify.")),
    *(f"data.{name}" for name in ("files", "folders", "group", "bands", "mask_bits")),
    *(f"data.{name}" for name in ("planes", "variance_planes", "mask_planes")),
    "loss.weighting",
    *("loss.uniform_share", "data.fresh", "optim.name"),
}


def resumable(path: str) -> bool:
    return path in RESUMABLE or path.partition(".")[0] in RESUMABLE_SECTIONS


def test_a_grid_of_an_older_version_ends_where_it_ended():
    for grid, t_end in (("karras", 0.0), ("uniform", None)):
        values = nested(TINY | {"sample.time_grid": grid})
        del values["sample"]["t_end"]
        assert from_config_dict(brought_up_to_date(values)).sample.t_end == t_end


def test_each_field_has_its_facts_and_no_retired_one_exists():
    assert list(facts_of_fields()) == list(DEFAULTS)
    assert not set(RETIRED_FIELDS) & set(DEFAULTS)
    for path, choice in RETIRED_CHOICES:
        with pytest.raises(ConfigError, match=f"{path}: got '{choice}'"):
            from_config_dict(nested({path: choice}))


def test_the_choices_that_a_field_is_for_exist():
    for path, facts in facts_of_fields().items():
        for choice, readers in facts.get("only_for", {}).items():
            for reader in readers:
                with pytest.raises(ConfigError) as caught:
                    from_config_dict(nested(TINY | {choice: f"{reader}x"}))
                assert reader in str(caught.value), path


def test_only_what_the_contract_allows_may_differ_on_a_resume():
    wrong = []
    for path in DEFAULTS:
        lines = differences(nested({}), nested({path: "other"}))
        named = [line.startswith(f"{path}: ") and line.endswith("'other'") for line in lines]
        held = [repr(DEFAULTS_AS_GIVEN[path]) in line for line in lines]
        if (named, held) != (([], []) if resumable(path) else ([True], [True])):
            wrong.append((path, lines))
    assert wrong == []


def test_all_differences_are_listed_and_a_field_of_another_version_is_one():
    old = nested({"seed": 3, "model.width": 8})
    old["loss"]["power"] = 2
    lines = differences(old, nested({}))
    assert [line.partition(":")[0] for line in lines] == ["loss.power", "model.width", "seed"]


def test_what_an_older_version_did_not_save_is_added_where_it_means_nothing_to_the_run():
    for path in set(DEFAULTS) - {"seed"}:
        section, _, leaf = path.partition(".")
        values = nested(TINY)
        del values[section][leaf]
        updated = brought_up_to_date(values)
        assert leaf not in values[section]  # it was not changed in place
        if path in YOUNGER or resumable(path):
            assert from_config_dict(updated) == from_config_dict(
                nested(TINY | {path: DEFAULTS[path]})
            )
        else:
            with pytest.raises(ConfigError, match=f"{path}: got 'nothing'"):
                from_config_dict(updated)


def test_a_whole_section_that_did_not_exist_is_added():
    values = nested(TINY)
    del values["export"], values["classify"]
    assert from_config_dict(brought_up_to_date(values)) == from_config_dict(nested(TINY))


@pytest.mark.parametrize("path", RETIRED_FIELDS)
@pytest.mark.parametrize("value", [None, 3])
def test_a_retired_field_is_dropped_with_one_line_in_the_log(path, value):
    saved._log_once.cache_clear()
    section, _, leaf = path.partition(".")
    old = nested(TINY)
    old[section][leaf] = value
    with absltest.TestCase().assertLogs("absl", "INFO") as log:
        updated = [brought_up_to_date(old) for _ in range(3)]
    assert [record.getMessage().rpartition(": ")[2] for record in log.records] == [path]
    assert updated == [nested(TINY)] * 3
    assert differences(updated[0], nested(TINY)) == []
    with pytest.raises(ConfigError, match=rf"^{path}: got '{value}'; .*lensjax\.data\.beam"):
        check_overrides({path: str(value)})


def test_a_retired_choice_gives_way_to_another_in_a_saved_configuration_alone():
    saved._log_once.cache_clear()
    for (path, choice), instead in RETIRED_CHOICES.items():
        with absltest.TestCase().assertLogs("absl", "INFO") as log:
            updated = brought_up_to_date(nested(TINY | {path: choice}))
        assert f"{path}={choice} (now {instead})" in log.records[0].getMessage()
        assert updated == nested(TINY | {path: instead})
