"""A session's files are found under the names of people and recorders, and unread ones are named."""

import numpy as np
import pytest
from dataset_files import user_error

from BC_training.convert.sessions.clock import video_start
from BC_training.convert.sessions.folder import find_file, session_names, unread


def put(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("")
    return folder


@pytest.mark.parametrize(("role", "names"), [
    ("video", ["video.mp4", "video.mkv", "Video.MP4", "2024-01-15 12-00-00.mkv"]),
    ("inputs", ["inputs.csv", "Inputs.CSV", "inputs.csv.txt", "inputs (1).csv", "inputs.tsv"]),
    ("memory", ["memory_data.csv.txt", "MemoryData.csv", "memory.csv"]),
    ("metadata", ["Metadata.json", "metadata.json.txt"]),
])  # fmt: skip
def test_a_file_is_found_in_other_spellings(tmp_path, role, names):
    for i, name in enumerate(names):
        folder = put(tmp_path / str(i), name, ".DS_Store", f"._{name}", "Thumbs.db", f"{name}_Zone.Identifier")
        assert find_file(folder, role).name == name


def test_the_expected_name_comes_first_and_several_others_are_refused(tmp_path):
    put(tmp_path, "video_1.mkv", "video_2.mkv", "inputs.csv", "inputs (1).csv")
    assert find_file(tmp_path, "inputs").name == "inputs.csv"
    message = user_error(find_file, tmp_path, "video")
    assert "has video_1.mkv, video_2.mkv: rename the one that is meant to video.mp4, or move" in message
    (tmp_path / "video_2.mkv").rename(tmp_path / "video.mp4")
    assert find_file(tmp_path, "video").name == "video.mp4"


def test_a_missing_file_is_named_with_a_similar_one(tmp_path):
    put(tmp_path, "video.mp4", "inputs.csv.gz")
    message = user_error(find_file, tmp_path, "inputs")
    assert "inputs.csv is missing (inputs.csv.gz may be meant: then save it as that" in message
    assert not find_file(tmp_path, "memory").exists()


def test_files_and_entries_that_are_not_read_are_named(tmp_path):
    put(tmp_path, "video.mp4", "inputs.csv", "ram.csv", "keybinds.json", "readme.txt")
    (tmp_path / "metadata.json").write_text('{"video_start_us": 5, "game": "x", "delay_ms": 3, "Mic": 1}')
    assert unread(tmp_path) == ["ram.csv is not read", "of metadata.json is not read: delay_ms, Mic"]


def test_one_session_and_a_folder_of_sessions_are_distinguished(tmp_path):
    sessions = put(tmp_path / "s", "highlights.mp4", "notes.txt")
    for name in ("a", "b", "__MACOSX", "$RECYCLE.BIN"):
        (sessions / name).mkdir()
    folder, names = session_names(sessions)
    assert (folder, sorted(names)) == (sessions, ["a", "b"])
    put(sessions / "a", "Video.mkv")
    assert session_names(sessions / "a") == (sessions, ["a"])


TIMES = np.array([400_000.0, 1_500_000.0])


@pytest.mark.parametrize("name", [
    "video_start", "videoStartUs", "VIDEO_START_US", "video-start-us", "video_start_time", "start_us",
    "video_offset_us", "first_frame_us", "recording_start_us", "video_begin", "vide_start_us",
])  # fmt: skip
def test_a_misspelt_start_is_refused(tmp_path, name):
    path = tmp_path / "metadata.json"
    path.write_text(f'{{"{name}": 500000}}')
    message = user_error(video_start, path, TIMES, 3e6)
    assert f"has no video_start_us (did you mean {name}?): rename the entry and" in message
    path.write_text(f'{{"{name}": 500000, "video_start_us": 7}}')
    assert video_start(path, TIMES, 3e6) == 7


@pytest.mark.parametrize("entry", [
    '"video_start": 0', '"video_start": 1.7e9', '"video_start": "12:00"', '"start_level": 500000', '"fps": 60',
    '"video_start_us": null', '"video_codec": "h264"', '"video_bitrate": 2500000', '"audio_start": 500000',
])  # fmt: skip
def test_an_entry_that_is_not_the_start_is_ignored(tmp_path, entry):
    (tmp_path / "metadata.json").write_text(f"{{{entry}}}")
    assert video_start(tmp_path / "metadata.json", TIMES, 3e6) is None


@pytest.mark.parametrize("value", ["1e999", "NaN", "true", '"5"', "1" + "0" * 400])
def test_a_start_that_is_no_number_is_refused(tmp_path, value):
    (tmp_path / "metadata.json").write_text(f'{{"video_start_us": {value}}}')
    assert "write the timestamp of the first frame" in user_error(video_start, tmp_path / "metadata.json", TIMES, 3e6)
