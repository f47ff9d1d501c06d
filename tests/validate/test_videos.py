import shutil
from pathlib import Path

import numpy as np
import pytest
from dataset_files import damage_frame, lose_frame
from filmed_datasets import encode, film, moving
from rich.console import Console

from BC_training.common.action import Action
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.storage.writer import EpisodeWriter, Names, recording
from BC_training.validate.validate import validate


@pytest.fixture(scope="module")
def filmed(tmp_path_factory) -> Path:
    return film(tmp_path_factory.mktemp("filmed") / "x.zarr", [90, 60, 60])


def found(path: Path, **options) -> dict[str, tuple[str | None, tuple]]:
    findings = validate(path, Console(quiet=True), workers=1, **options)
    return {finding.kind: (finding.episode, finding.spans) for finding in findings}


def test_videos_without_a_fault_have_no_finding_and_are_repaired_bit_for_bit(tmp_path, filmed):
    assert found(filmed, repair_to=tmp_path / "y.zarr") == {}
    for number in range(3):
        whole, copy = (ZarrGameplayDataset(path) for path in (filmed, tmp_path / "y.zarr"))
        rows = range(whole.episodes[number].length)
        np.testing.assert_array_equal(copy.frames(number, rows), whole.frames(number, rows))
        np.testing.assert_array_equal(copy.actions(number), whole.actions(number))


def test_damage_in_a_video_is_found_and_a_repair_keeps_the_frames_before_it(tmp_path, filmed):
    path = Path(shutil.copytree(filmed, tmp_path / "x.zarr"))
    file = path / "episode_0" / "frames.mp4"
    content = bytearray(file.read_bytes())
    at = content.index(b"mdat") + 4 + (len(content) - content.index(b"mdat")) // 2
    content[at : at + 200] = bytes(200)
    file.write_bytes(content)
    episode, ((first, last), *_) = found(path, repair_to=tmp_path / "y.zarr")["damaged"]
    assert (episode, last < 89) == ("episode_0", True)
    repaired, whole = ZarrGameplayDataset(tmp_path / "y.zarr"), ZarrGameplayDataset(filmed)
    assert [e.length for e in repaired.episodes] == [first, 60, 60]
    np.testing.assert_array_equal(repaired.frames(0, range(first)), whole.frames(0, range(first)))


def test_labels_beyond_the_video_are_found_and_cut(tmp_path, filmed):
    path = Path(shutil.copytree(filmed, tmp_path / "x.zarr"))
    encode(path / "episode_1" / "frames.mp4", moving(50), bf="0", g="20")
    assert found(path, repair_to=tmp_path / "y.zarr")["length"][0] == "episode_1"
    assert [e.length for e in ZarrGameplayDataset(tmp_path / "y.zarr").episodes] == [90, 50, 60]


def test_a_video_with_few_key_frames_is_a_warning(tmp_path):
    path = film(tmp_path / "x.zarr", [230, 20])
    encode(path / "episode_0" / "frames.mp4", moving(230), bf="0", g="1000", sc_threshold="0")
    assert found(path) == {"key_frames": ("episode_0", ())}


def test_repeated_frames_are_expected_of_a_window(tmp_path):
    for game, kinds in (("doom/basic", {"duplicates"}), ("window/Doom", set())):
        path = tmp_path / f"{game.replace('/', '_')}.zarr"
        with recording(path, Names(("left", "right"))):
            for number in range(2):
                writer = EpisodeWriter(path, number)
                frames = moving(60, seed=number)
                for t in range(60):
                    shown = frames[t - 1 if t % 4 == 3 else t]  # a quarter repeats
                    writer.append(shown, Action.of([t % 5 == 0, t % 7 == 0], []), None)
                writer.commit({"fps": 20.0, "game": game})
        assert set(found(path)) == kinds


def test_a_frame_lost_or_damaged_in_a_shard_is_found_alone(tmp_path):
    path = tmp_path / "x.zarr"
    with recording(path, Names(("left", "right"))):
        for number in range(2):
            writer = EpisodeWriter(path, number)
            for t, frame in enumerate(moving(40, seed=number)):
                writer.append(frame, Action.of([t % 5 == 0, t % 7 == 0], []), None)
            writer.commit({"fps": 20.0})
    lose_frame(path, 17)
    damage_frame(path, 30, 1)
    assert found(path, repair_to=tmp_path / "y.zarr") == {
        "missing": ("episode_0", ((17, 17),)),
        "damaged": ("episode_1", ((30, 30),)),
    }
    assert [e.length for e in ZarrGameplayDataset(tmp_path / "y.zarr").episodes] == [17, 30]
