"""Finds which buttons, axes and state values change places or signs when frames are flipped horizontally."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from BC_training.common.errors import UserError, unknown


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# A name is its own mirror image if all its words are among these. In a button's name there may also
# be words of motion.
BUTTON_WORDS = _set(
    "forward forwards back backward backwards up down walk run sprint speed jump crouch sneak climb dodge roll dash "
    "attack shoot fire hit strike punch kick melee heavy light strong weak charge cast spell skill ability special "
    "ultimate block guard parry shield heal reload aim zoom scope lock on off target use interact action activate "
    "open pick pickup take drop throw grenade item items weapon ammo switch select next prev previous inventory map "
    "menu pause start confirm accept cancel toggle mount"
)
STATE_WORDS = _set(
    "hp max min current total base health armor armour shield ammo kills deaths frags hits sp fp mp mana stamina "
    "energy score points reward level lives xp experience gold coins money keys count number speed time timer "
    "weapon weapons item items type id lock locked on alive dead hero player npc enemy boss target"
)
# An axis changes its sign if one of its words is among the first of these, and stays as it is if all of them are among
# the second; in either case the others may be of _DEVICES or the sides that these are on.
ACROSS_WORDS = _set("x dx horizontal steer steering yaw turn strafe lateral roll")
ALONG_WORDS = _set("y dy vertical pitch gas brake throttle accelerate scroll forward forwards")
_MOTION = frozenset({"move", "turn", "look", "go"})  # on their own they have no direction
_SIDES = {"left": "right", "right": "left"}
# With these, left and right are sides of a device or a body, which a mirrored screen need not swap.
_DEVICES = _set("mouse click button trigger bumper shoulder stick hand arm shift ctrl control alt")
_AXIS_WORDS = _DEVICES | _set("left right axis pad joy joystick thumbstick move look delta rotation view camera speed")


@dataclass(frozen=True)
class Mirror:
    """The indices of the mirror images of a sample's labels."""

    actions: tuple[int, ...]  # for each of A buttons
    state: tuple[int, ...] = ()  # for each of S state values; empty if none is used
    signs: tuple[float, ...] = ()  # the factor 1 or -1 of each of S state values
    since_change: tuple[int, ...] = ()  # for each state value whose changes are counted
    axes: tuple[int, ...] = ()  # for each of X axes
    axis_signs: tuple[float, ...] = ()  # the factor 1 or -1 of each of X axes


@dataclass(frozen=True)
class MirrorTable:
    """The mirror images of a dataset, from its attribute "mirror" and from its names.

        "mirror": {"key_3": "key_4", "key_5": "key_5", "HeroAngle": "-HeroAngle"}

    A name may map to itself; a leading minus changes the sign of an axis or a state value. An entry also
    holds in the other direction. Other names are read word by word: a button or state value with the word
    left or right is swapped with the name that has the other, and one of only side-neutral words
    (``BUTTON_WORDS``, ``STATE_WORDS``) is its own mirror image. An axis across the screen (``ACROSS_WORDS``)
    changes its sign, one along it (``ALONG_WORDS``) does not.
    """

    entries: Any  # the attribute as it was read; None without one
    keys: tuple[str, ...]  # all buttons of the dataset
    attributes: tuple[str, ...]  # all its state values
    path: str  # the dataset, for messages
    axes: tuple[str, ...] = ()  # all its axes

    def find(
        self,
        action_names: Sequence[str],
        state_names: Sequence[str] = (),
        used: Sequence[str] | None = None,
        since_change: Sequence[str] = (),
        axis_names: Sequence[str] = (),
    ) -> Mirror:
        """Finds the mirror images of these buttons, axes and state values, in their order.

        Args:
            used: the state values that need one; the others stay as they are. None for all.
            since_change: the state values whose frames since their last change are counted.

        Raises:
            UserError: the table is wrong, or a name's mirror image is unknown or not among the names.
        """
        images = self.check()
        unsure: dict[str, list[str]] = {"action": [], "axis": [], "state value": []}
        found: dict[str, list[tuple[int, float]]] = {"action": [], "axis": [], "state value": []}
        for kind, names in (("action", action_names), ("axis", axis_names), ("state value", state_names)):
            for name in names:
                if kind == "state value" and used is not None and name not in used:
                    found[kind].append((names.index(name), 1.0))
                    continue
                image = images[kind].get(name) or _by_name(name, names, kind)
                if image is None or image.removeprefix("-") not in names:
                    unsure[kind].append(name)
                else:
                    found[kind].append((names.index(image.removeprefix("-")), -1.0 if image[0] == "-" else 1.0))
        if any(unsure.values()):
            raise self._unknown(unsure, images)
        state = tuple(i for i, _ in found["state value"])
        counted = {name: state_names[state[state_names.index(name)]] for name in since_change}
        for name, image in counted.items():
            if image not in since_change:
                raise UserError(
                    f"training.augmentation.flip: dataset.state.since_change has '{name}', but not '{image}', which "
                    "it becomes in a mirrored screen: add it there, or set flip=0"
                )
        return Mirror(
            tuple(i for i, _ in found["action"]),
            state,
            tuple(sign for _, sign in found["state value"]),
            tuple(since_change.index(image) for image in counted.values()),
            tuple(i for i, _ in found["axis"]),
            tuple(sign for _, sign in found["axis"]),
        )

    def check(self) -> dict[str, dict[str, str]]:
        """The entries of buttons, axes and state values, in both directions; a UserError where the table is wrong."""
        entries = {} if self.entries is None else self.entries
        where = f"{self.path}: attribute 'mirror'"
        if not isinstance(entries, Mapping) or not all(isinstance(image, str) and image for image in entries.values()):
            raise UserError(f'{where} is not a table of names: write it as {{"move_left": "move_right"}}')
        names = {"action": self.keys, "axis": self.axes, "state value": self.attributes}
        images: dict[str, dict[str, str]] = {kind: {} for kind in names}
        for name, image in entries.items():
            kinds = [kind for kind, known in names.items() if name in known]
            if not kinds:
                raise unknown("name", name, {*self.keys, *self.axes, *self.attributes}, f"in {where}")
            for kind in kinds:
                known = names[kind]
                sign, other = ("", image) if image in known else ("-" * image.startswith("-"), image.removeprefix("-"))
                if other not in known:
                    raise unknown(kind, other, known, f"in {where} as the mirror image of '{name}'")
                if sign and kind == "action":
                    raise UserError(
                        f"{where} maps action '{name}' to '{image}', but a button has no sign: remove the minus"
                    )
                for one, its in ((name, sign + other), (other, sign + name)):
                    if images[kind].setdefault(one, its) != its:
                        raise UserError(
                            f"{where} gives {kind} '{one}' two mirror images, '{images[kind][one]}' and '{its}': "
                            "what is mirrored twice must be itself again; correct the table"
                        )
        return images

    def _unknown(self, unsure: dict[str, list[str]], images: dict[str, dict[str, str]]) -> UserError:
        listed = "; ".join(
            f"{_plural(kind, len(names))} {', '.join(repr(name) for name in names)}"
            for kind, names in unsure.items()
            if names
        )
        known = [n for n in unsure["action"] if n in images["action"] or _by_name(n, self.keys, "action")]
        if known:
            return UserError(
                f"training.augmentation.flip: no mirror image for {listed}: that of '{known[0]}' is not among "
                "dataset.actions; add it there, or set flip=0"
            )
        table = dict(self.entries or {}) | {name: "?" for names in unsure.values() for name in names}
        return UserError(
            f"training.augmentation.flip: no mirror image is known for {listed}: write a table into the dataset, "
            f"zarr.open_group('{self.path}').attrs['mirror'] = {table}, where each ? is the name it becomes in a "
            "mirrored screen (itself, if that changes nothing; '-NAME' turns the sign of an axis or a state value), "
            "or set flip=0"
        )


def _plural(kind: str, count: int) -> str:
    return kind if count == 1 else "axes" if kind == "axis" else f"{kind}s"


def _by_name(name: str, names: Sequence[str], kind: str) -> str | None:
    """The mirror image that follows from the words of ``name``, or None."""
    words = _words(name)
    if kind == "axis":
        across, along = set(words) & ACROSS_WORDS, set(words) & ALONG_WORDS
        rest = set(words) - across - along
        if bool(across) == bool(along) or not all(word in _AXIS_WORDS or word.isdigit() for word in rest):
            return None
        return f"-{name}" if across else name
    if any(word in _SIDES for word in words):
        swapped = [_SIDES.get(word, word) for word in words]
        matches = [other for other in names if _words(other) == swapped]
        twins = [other for other in names if _words(other) == words]
        return matches[0] if len(matches) == len(twins) == 1 and not set(words) & _DEVICES else None
    rest = set(words) - _MOTION if kind == "action" else set(words)
    return name if rest and rest <= (BUTTON_WORDS if kind == "action" else STATE_WORDS) else None


def _words(name: str) -> list[str]:
    """The words of snake_case, kebab-case or camelCase in lower case; digits are separate words."""
    parts = re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=\D)(?=\d)|(?<=\d)(?=\D)", name)
    return [part.lower() for part in parts if part]
