"""Datasets of each version, which tests copy before they change them."""

import shutil
from pathlib import Path

import pytest
from lerobot_datasets import WRITERS


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> dict[tuple[str, str], Path]:
    folder = tmp_path_factory.mktemp("lerobot")
    return {
        (version, camera): write(folder / version / camera, camera=camera)
        for version, write in WRITERS.items()
        for camera in ("video", "image")
    }


@pytest.fixture
def copy(written, tmp_path):
    return lambda *key: Path(shutil.copytree(written[key], tmp_path / "source"))


@pytest.fixture(params=list(WRITERS))
def filmed(request, copy) -> Path:
    """A dataset of either version whose frames are in videos."""
    return copy(request.param, "video")


@pytest.fixture(params=list(WRITERS))
def source(request, copy) -> Path:
    """A dataset of either version with its pictures among the rows."""
    return copy(request.param, "image")


@pytest.fixture
def v21(copy) -> Path:
    return copy("v2.1", "image")
