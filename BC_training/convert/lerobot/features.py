"""Interprets the features of a LeRobot dataset: the action, the state, their names, the camera and its frame size."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from BC_training.common.errors import UserError, unknown

# In order of preference: LeRobot's own name, then openpi's.
_ACTIONS, _STATES = ("action", "actions"), ("observation.state", "state")
_OWN = ("timestamp", "frame_index", "episode_index", "index", "task_index")  # in every LeRobot dataset
_MOST_VALUES = 100_000  # a longer row is a mistake, and its names would fill the memory
_CHANNELS = (1, 3, 4)

BUTTONS = "buttons"  # in a feature's "info", this program's own entry: which of the action's values are buttons

Feature = dict[str, Any]


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_text(value: Any) -> bool:
    """Whether ``value`` is text without halves of a character, which JSON can hold but no file can."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def read_features(place: str, info: dict[str, Any]) -> dict[str, Feature]:
    """The features by name, each with "dtype" and "shape".

    Raises a UserError if there are none or one is damaged. ``place``, here and below, is the metadata's file.
    """
    features = info.get("features")
    if not isinstance(features, dict) or not features:
        raise UserError(f"{place} has no 'features': restore it")
    found = {}
    for name, feature in features.items():
        shape = feature.get("shape") if isinstance(feature, dict) else None
        shape = [shape] if is_whole(shape) else shape
        if not isinstance(shape, list) or not all(map(is_whole, shape)) or not isinstance(feature.get("dtype"), str):
            raise UserError(f"{place}: feature '{name}' needs a 'dtype' and a 'shape' of whole numbers: restore it")
        found[name] = {**feature, "shape": shape}
    return found


def choose_camera(place: str, features: dict[str, Feature], camera: str | None) -> str:
    """The feature with the frames; ``camera`` is None if there is only one. Otherwise raises a UserError."""
    cameras = _cameras(features)
    if camera is not None:
        if camera not in cameras:
            raise unknown("camera", camera, cameras, f"{place} names them")
        return camera
    if not cameras:
        raise UserError(f"{place} has no camera among its features ({', '.join(features)}): policies here need frames")
    if len(cameras) > 1:
        raise UserError(f"{place} has {len(cameras)} cameras ({', '.join(cameras)}): choose one with --camera")
    return cameras[0]


@dataclass(frozen=True)
class Columns:
    """What the features become."""

    action: str  # the feature with the action
    action_names: tuple[str, ...]  # the names of the action's values
    buttons: frozenset[str] | None  # which of them the metadata call buttons; None where they do not say
    state: str | None  # the feature with the state; None without one
    attributes: tuple[str, ...]  # the names of the state's S values
    unread: tuple[str, ...]  # other features and columns, without the cameras and LeRobot's own
    cameras: tuple[str, ...]  # the cameras that were not chosen


def choose_columns(place: str, features: dict[str, Feature], camera: str, stored: Iterable[str]) -> Columns:
    """Finds the action and the state; ``stored`` are the columns of the rows, which may be more than the features.

    Raises a UserError if there is no action, or the values of the action or the state cannot be named.
    """
    action = next((name for name in _ACTIONS if name in features), None)
    if action is None:
        parts = [name for name in features if name.startswith("action")]
        remedy = f"; is it {' or '.join(parts)}? Then rename that" if parts else "; name it so"
        remedy = f"policies here learn what was pressed{remedy}, in this file and in the parquet files"
        raise UserError(f"{place} has no feature 'action' (it has {', '.join(features)}): {remedy}")
    state = next((name for name in _STATES if name in features), None)
    cameras = tuple(name for name in _cameras(features) if name != camera)
    known = {action, state, camera, *_OWN, *cameras}
    action_names = _value_names(place, action, "action", features[action])
    return Columns(
        action,
        action_names,
        _stated_buttons(place, action, action_names, features[action]),
        state,
        () if state is None else _value_names(place, state, "state", features[state]),
        tuple(name for name in dict.fromkeys([*features, *stored]) if name not in known),
        cameras,
    )


def frame_size(place: str, key: str, feature: Feature) -> tuple[int, int]:
    """(H, W) of a camera's frames in pixels.

    The shape is [H, W], or [H, W, C] or [C, H, W] with 1, 3 or 4 channels; "names" may give another order. Another
    shape raises a UserError.
    """
    shape, names = feature["shape"], _unwrapped(feature.get("names"))
    if min(shape, default=0) >= 1:
        if isinstance(names, list) and len(names) == len(shape) and "height" in names and "width" in names:
            height, width = names.index("height"), names.index("width")
            if all(n in _CHANNELS for i, n in enumerate(shape) if i not in (height, width)):
                return shape[height], shape[width]
        if len(shape) == 3 and shape[0] in _CHANNELS:
            return shape[1], shape[2]
        if len(shape) == 2 or (len(shape) == 3 and shape[2] in _CHANNELS):
            return shape[0], shape[1]
    fault = f"has shape {shape} with the names {feature.get('names')}, not height, width and 1, 3 or 4 channels"
    raise UserError(f"{place}: camera '{key}' {fault}: correct it")


def _cameras(features: dict[str, Feature]) -> list[str]:
    return [name for name, feature in features.items() if feature["dtype"] in ("video", "image")]


def _value_names(place: str, key: str, prefix: str, feature: Feature) -> tuple[str, ...]:
    """The names of a feature's values, or ``prefix`` with a number if the dataset names none.

    LeRobot stores a list, lists by axis ({"motors": [...]}) or {name: position}.
    """
    place, shape = f"{place}: feature '{key}'", feature["shape"] or [1]
    if len(shape) != 1 or not 1 <= shape[0] <= _MOST_VALUES:
        raise UserError(f"{place} has shape {feature['shape']}, not one row of values: it cannot be converted")
    width, names = shape[0], _unwrapped(feature.get("names"))
    if names is None:
        return tuple(f"{prefix}_{i}" for i in range(width))
    if isinstance(names, list) and all(map(_is_name, names)):
        texts = [str(name) for name in names]
        if len(texts) == 1 and width > 1:
            return tuple(f"{texts[0]}_{i}" for i in range(width))
        if len(texts) == width == len(set(texts)):
            return tuple(texts)
    listed = json.dumps(feature["names"])[:200]
    raise UserError(f"{place} has {width} values and the names {listed}: name each once, in a list")


def _stated_buttons(place: str, key: str, names: tuple[str, ...], feature: Feature) -> frozenset[str] | None:
    """The buttons among the action's ``names``, as ``export_metadata`` writes them; None where nothing is stated."""
    info = feature.get("info")
    stated = info.get(BUTTONS) if isinstance(info, dict) else None
    if stated is None:
        return None
    if not isinstance(stated, list) or not all(name in names for name in stated):
        fault = f"has the {BUTTONS} {json.dumps(stated)[:200]}, no list of names of its values"
        raise UserError(f"{place}: feature '{key}' {fault}: correct it, or remove it")
    return frozenset(stated)


def _is_name(name: Any) -> bool:
    return is_whole(name) or (is_text(name) and name.strip() != "" and len(name.splitlines()) == 1)


def _unwrapped(names: Any) -> Any:
    """The list of names, without dictionaries or lists around it; None if nothing is named."""
    while isinstance(names, dict | list):
        if isinstance(names, dict) and names and all(map(is_whole, names.values())):
            return sorted(names, key=names.__getitem__) if len(set(names.values())) == len(names) else names
        if all(name is None for name in (names.values() if isinstance(names, dict) and len(names) < 2 else names)):
            return None
        if len(names) > 1 or (isinstance(names, list) and not isinstance(names[0], dict | list)):
            return names
        (names,) = names.values() if isinstance(names, dict) else names
    return [names] if isinstance(names, str) else names
