"""The metadata of LeRobot datasets is read in every spelling, and damage is named with its place."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_files import user_error
from lerobot_datasets import CAMERA, check_read, edit_episodes, edit_file, edit_info, imported, opened, read, set_info

SEPARATORS = "\u2028\u2029\x85\x0b\x0c\x1c"


def edit_tasks(root: Path, tasks: list[Any]) -> None:
    """Gives the episodes ``tasks`` in the list of either version."""
    table = root / "meta/episodes/chunk-000/file-000.parquet"
    if table.exists():
        pq.write_table(pq.read_table(table).drop_columns("tasks").append_column("tasks", pa.array(tasks)), table)
    else:
        edit_episodes(lambda rows: [row.update(tasks=task) for row, task in zip(rows, tasks, strict=True)])(root)


@pytest.mark.parametrize(("tasks", "expected"), [
    (["get the key", None, f"a{SEPARATORS}b"], [["get the key"], None, [f"a{SEPARATORS}b"]]),
    ([["look", f"a{SEPARATORS}b"], [None], []], [["look", f"a{SEPARATORS}b"], None, None]),
])  # fmt: skip
def test_tasks_may_be_texts_lists_or_nulls(source, tasks, expected):
    edit_tasks(source, tasks)
    found = opened(source)
    assert [found.read(episode).attrs.get("tasks") for episode in found.episodes] == expected


def test_numbers_of_tasks_are_looked_up(source):
    edit_tasks(source, [[1, 0], [1], None])
    renamed = source.rename(f"{source}_")
    assert "has the task '1', no text and no number in meta/tasks" in user_error(opened, renamed)
    names = ["play", "a\u2028b"]
    if (renamed / "meta/tasks.jsonl").exists():
        lines = [json.dumps({"task_index": i, "task": name}, ensure_ascii=False) + "\n" for i, name in enumerate(names)]
        (renamed / "meta/tasks.jsonl").write_text("".join(lines), "utf-8")
    else:
        pq.write_table(pa.table({"task_index": [0, 1], "__index_level_0__": names}), renamed / "meta/tasks.parquet")
    found = opened(renamed)
    tasks = [found.read(episode).attrs.get("tasks") for episode in found.episodes]
    assert tasks == [["a\u2028b", "play"], ["a\u2028b"], None]


def test_metadata_may_have_any_encoding_of_json(v21):
    files = {file: file.read_text() for file in (v21 / "meta/episodes.jsonl", v21 / "meta/info.json")}
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        for file, text in files.items():
            file.write_text(text.replace("\n", "\r\n"), encoding)
        check_read(v21)


@pytest.mark.parametrize("version", ["2.1", 2.1, "V2.1", "v2.1.0", " v2.1 "])
def test_the_version_may_have_other_spellings(v21, version):
    set_info(codebase_version=version)(v21)
    check_read(v21)


@pytest.mark.parametrize(("chunk", "episode"), [
    ("{episode_chunk:03}", "{episode_index:06}"),
    ("{episode_chunk:0>3}", "{episode_index:0>6}"),
    ("{episode_chunk:0>3d}", "{episode_index:06d}"),
    ("00{episode_chunk}", "00000{episode_index:d}"),
])  # fmt: skip
def test_templates_may_format_numbers_in_any_of_pythons_ways(v21, chunk, episode):
    set_info(data_path=f"data/chunk-{chunk}/episode_{episode}.parquet")(v21)
    check_read(v21)


def test_unused_entries_may_be_null(v21):
    unused = ("total_episodes", "total_frames", "chunks_size", "robot_type", "video_path")
    set_info(**dict.fromkeys(unused), data_path="data/{episode_index}.parquet")(v21)
    for i, file in enumerate(sorted(v21.glob("data/*/*.parquet"))):
        file.rename(v21 / "data" / f"{i}.parquet")
    check_read(v21)


def test_an_empty_episode_has_no_steps(v21):
    edit_episodes(lambda rows: rows[0].update(length=0))(v21)
    assert read(v21)[0] == read(v21, fps=10)[0] == []


def set_line(row: Any):
    return edit_episodes(lambda rows: rows.__setitem__(1, row))


def set_task(task: Any):
    return edit_episodes(lambda rows: rows[1].update(tasks=task))


def write(name: str, text: str):
    return lambda root: (root / name).write_text(text)


@pytest.mark.parametrize(("damage", "part"), [
    (edit_file("meta/info.json", Path.unlink), "no meta/info.json: give the folder"),
    *[(write("meta/info.json", text), "info.json is not a JSON object") for text in ("{", "[]")],
    (write("meta/info.json", "[" * 100_000), "nested too deeply"),
    (write("meta/episodes.jsonl", "[" * 100_000), "episodes.jsonl, line 1 is damaged"),
    *[(set_info(codebase_version=version), f'unknown codebase_version {str(version)!r}') for version in ("v1.6", None)],
    *[(set_info(fps=fps), "info.json has fps")
     for fps in (None, "20", True, 0, -1, float("nan"), float("inf"), 10**400, [20], {})],
    *[(set_info(chunks_size=size), f"chunks_size {size!r}, not a whole number above 0") for size in (0, "1000", True)],
    *[(set_info(total_episodes=n), f"counts {n!r} episodes, the list beside it has 3") for n in (4, "3")],
    *[(set_info(data_path=f"data/{name}"), f"unknown placeholder {name}; known are episode_chunk, episode_index, video")
      for name in ("{secret}", "{}", "{0}", "{episode_index.__class__}", "{video_key[0]}")],
    *[(set_info(data_path=f"{{episode_index{form}}}"), "in an unknown format: write it as {episode_index:03d}")
      for form in ("!r", ":x", ":0999999999d", ":{episode_chunk}")],
    (set_info(data_path="data/{video_key:09}"), "write it as {video_key}"),
    *[(set_info(data_path=path), "is malformed") for path in ("data/{episode_index", "data/episode_index}")],
    *[(set_info(data_path=path), "leads out of the dataset")
     for path in ("../{episode_index}", "data/../../x", "/data/x", "C:/data/x", "data\\x", "data/\0")],
    (set_info(data_path=7), "data_path 7 is not a path"),
    *[(set_line({"episode_index": index, "length": 4}), f"line 2 has 'episode_index' {index}")
      for index in (-1, 0.5, True, 10**30)],
    (set_line({"episode_index": 1}), "line 2 has 'length' None"),
    (set_line({"episode_index": 1, "length": float("nan")}), "line 2 has 'length' nan"),
    (set_line({"episode_index": 2, "length": 5}), "lists episode 2 twice"),
    (set_line([]), "line 2 is damaged"),
    *[(set_task(task), "episodes.jsonl, line 2 has the task")
     for task in (True, 2.5, {"text": "play"}, [["play"]], "\ud83d")],
])  # fmt: skip
def test_damaged_metadata_is_refused_in_one_short_line(v21, damage, part):
    damage(v21)
    message = user_error(opened, v21)
    assert part in message
    assert len(message) < 500


@pytest.mark.parametrize(("damage", "part"), [
    (set_info(video_path="videos/../../x.mp4"), "video_path 'videos/../../x.mp4' leads out of the dataset"),
    (set_info(video_path=None), "video_path None is not a path"),
    (edit_info(lambda i: i["features"].update({"../../x": i["features"].pop(CAMERA)})), "../../x"),
    (edit_file("meta/episodes*", lambda f: f.unlink() if f.is_file() else shutil.rmtree(f)), "episodes"),
])  # fmt: skip
def test_missing_places_of_episodes_are_refused_in_either_version(filmed, damage, part):
    damage(filmed)
    assert part in user_error(opened, filmed)


@pytest.mark.parametrize("column", ["length", "data/file_index", f"videos/{CAMERA}/from_timestamp"])
def test_a_list_of_episodes_without_a_value_or_a_column_is_refused(copy, column):
    source = copy("v3.0", "video")
    file = source / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    edit_episodes(lambda rows: rows[1].update({column: None}))(source)
    assert f"episode 1 has '{column}' None" in user_error(opened, source)
    pq.write_table(table.drop_columns([column]), file)
    assert f"has no column '{column}'" in user_error(opened, source)


@pytest.mark.parametrize("bad", [float("nan"), -1.0, 0.5])
def test_a_number_of_a_file_that_is_not_whole_is_refused(copy, bad):
    source, column = copy("v3.0", "video"), f"videos/{CAMERA}/file_index"
    file = source / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, pa.array([0.0, 0.0, bad])), file)
    assert user_error(opened, source).startswith(f"{file}: episode 2 has '{column}' {bad}")


@pytest.mark.parametrize(("shift", "part"), [
    (lambda rows: rows[1].update({f"videos/{CAMERA}/from_timestamp": 0.25}), "episode 1 has 5 pictures for 6 rows"),
    (lambda rows: rows[2].update({f"videos/{CAMERA}/from_timestamp": 9e15}), "file-001.mp4, episode 2"),
])  # fmt: skip
def test_an_episode_at_a_wrong_place_in_its_video_costs_only_itself(copy, tmp_path, shift, part):
    source = copy("v3.0", "video")
    edit_episodes(shift)(source)
    message = user_error(imported, source, tmp_path / "x.zarr")
    assert part in message
    assert "1 of 3 recordings" in message
