"""``dataset.path`` is one path, or a list of several."""

import pytest
from dataset_files import user_error

from BC_training.common.config import from_dict, load_config, save_config, to_dict
from BC_training.common.settings.dataset_path import name_of


def load(*overrides: str):
    return load_config("configs/pure_cnn.yaml", [*overrides])


@pytest.mark.parametrize(
    ("written", "paths"),
    [
        ("[data/a.zarr,data/b.zarr]", ("data/a.zarr", "data/b.zarr")),
        ("[ a b.zarr, 'c, d.zarr', 12 , on]", ("a b.zarr", "c, d.zarr", "12", "on")),
        ("[data/a.zarr]", ("data/a.zarr",)),
        ("data/a.zarr", ("data/a.zarr",)),
        ("[1] a.zarr", ("[1] a.zarr",)),
        ("'[1]'", ("[1]",)),
        ("[a.zarr, s3://bucket/b.zarr]", ("a.zarr", "s3://bucket/b.zarr")),
    ],
)
def test_one_path_or_several_are_read_and_read_back(tmp_path, written, paths):
    config = load(f"dataset.path={written}")
    assert config.dataset.paths == paths
    assert config.dataset.path == (paths if len(paths) > 1 else paths[0])
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config == from_dict(to_dict(config), "here")


def test_several_paths_stand_in_a_file_and_a_mapping(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pure_cnn.yaml").write_text("dataset: {path: [~/a, b], record: {game: doom/basic}}\n")
    home = str(tmp_path / "a")
    assert load_config(tmp_path / "pure_cnn.yaml", ["dataset.record=null"]).dataset.path == (home, "b")
    changed = load_config(tmp_path / "pure_cnn.yaml", {"dataset.path": ["c", "b"]})
    assert changed.dataset.path == ("c", "b")
    assert changed.dataset.record is None  # it is about the file's path
    assert "~nobody-of-this-name" in user_error(load, "dataset.path=[a,~nobody-of-this-name/b]")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["dataset.path=[]"], "dataset.path: write one path, or several as [a.zarr, b.zarr]"),
        (["dataset.path=[[a],b]"], "dataset.path: write one path, or several"),
        (["dataset.path=[a,null]"], "dataset.path: expected text, or a list of texts"),
        (["dataset.path={a: b}", "dataset.path.c=d"], "dataset.path: expected text, or a list of texts"),
        (["dataset.path=null"], "dataset.path: expected text, or a list of texts"),
        (["dataset.path=[a, b, ./a]"], "./a is there twice: name each dataset once"),
        (["dataset.path=[x/a, y/a/]"], "x/a and y/a/ have the same name"),
        (
            ["dataset.path=[a,b]", "dataset.record={game: doom/basic}"],
            "names 2 datasets, and dataset.record records one",
        ),
        (["dataset.path=[a,b]", "dataset.cache=disk"], "dataset.cache=disk keeps one: set device, none or auto"),
        (["dataset.path=[a,b]", "training.weight_by_return={top: 0.5}"], "compares scores of one dataset"),
    ],
)
def test_what_does_not_go_with_several_is_refused_in_a_line(overrides, said):
    message = user_error(load, *overrides)
    assert said in message
    assert "\n" not in message


def test_the_name_of_a_dataset_holds_no_secret():
    assert name_of("https://me:SECRET@host/folder/x.zarr?sig=SECRET") == "x.zarr"
    assert name_of("data/x?y.zarr/") == "x?y.zarr"
