"""The rule by which recipes, files, arms and command lines combine."""

from orchestrator.experiment.overlay import at, depth_reached, flatten, merge


def test_options_of_the_same_component_merge():
    merged = merge({"use": "group", "count": 8}, {"use": "group", "seed": 1})

    assert merged == {"use": "group", "count": 8, "seed": 1}


def test_options_without_a_name_change_the_component_below():
    assert merge({"use": "group", "count": 8}, {"count": 4}) == {"use": "group", "count": 4}


def test_another_component_replaces_the_one_below_wholly():
    assert merge({"use": "group", "count": 8}, {"use": "dars"}) == {"use": "dars"}


def test_another_optimizer_keeps_the_keys_all_optimizers_share():
    merged = merge({"optimizer": {"use": "adamw", "lr": 0.1}}, {"optimizer": {"use": "sgd"}})

    assert merged == {"optimizer": {"use": "sgd", "lr": 0.1}}


def test_lists_replace_and_indices_change_single_items():
    base = {"rewards": [{"use": "a", "weight": 1}, {"use": "b"}]}

    assert merge(base, {"rewards": [{"use": "c"}]}) == {"rewards": [{"use": "c"}]}
    assert merge(base, {"rewards": {"0": {"weight": 2}}}) == {"rewards": [{"use": "a", "weight": 2}, {"use": "b"}]}


def test_null_takes_a_component_away():
    assert merge({"advantage": {"use": "gae"}}, {"advantage": None}) == {"advantage": None}


def test_merging_changes_neither_side():
    base, overlay = {"a": {"b": [1]}}, {"a": {"c": [2]}}

    merged = merge(base, overlay)
    merged["a"]["b"].append(9)
    merged["a"]["c"].append(9)

    assert (base, overlay) == ({"a": {"b": [1]}}, {"a": {"c": [2]}})


def test_at_nests_a_value_under_its_path():
    assert at("a.b.c", 1) == {"a": {"b": {"c": 1}}}


def test_depth_counts_keys_and_list_indices():
    data = {"rewards": [{"use": "exact"}]}

    assert depth_reached(data, ["rewards", "0", "use"]) == 3
    assert depth_reached(data, ["rewards", "1", "use"]) == 1
    assert depth_reached(data, ["schedule"]) == 0


def test_nested_data_is_flattened_to_the_paths_one_would_type():
    assert flatten({"a": {"b": 1, "c": {"d": None}}, "e": {}, "f": [1, 2]}) == {
        "a.b": 1,
        "a.c.d": None,
        "e": {},
        "f": [1, 2],
    }
    assert flatten({"rewards": [{"use": "exact", "weight": 1.0}]}) == {
        "rewards.0.use": "exact",
        "rewards.0.weight": 1.0,
    }
