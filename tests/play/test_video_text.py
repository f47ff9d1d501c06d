"""Names are drawn as they are where the font has their characters, and as numbers elsewhere."""

import numpy as np
import pytest

from BC_training.common.action import at_rest
from BC_training.play.video import Hud
from BC_training.play.video_text import drawable, drawable_text, fit, font, substitutions


@pytest.mark.parametrize("names", [("прыжок", "огонь"), ("άλμα", "φωτιά"), ("saut é", "ñ"), ("Key.space", "a[0]")])
def test_names_that_the_font_has_are_drawn(names):
    assert drawable(names) == [*names]
    assert substitutions(names, "actions") is None


@pytest.mark.parametrize("name", ["攻撃", "跳", "🔥", "a\nb", "a\tb", "공격"])
def test_a_number_stands_for_a_name_that_cannot_be_drawn(name):
    assert drawable(["left", name]) == ["left", "2"]
    line = substitutions(["left", name], "actions")
    assert line == f"actions with characters that the font lacks are drawn as numbers: 2 for {name}"
    assert drawable_text("run 攻") == "run ?"


def test_no_two_names_look_alike():
    names = ["прыжок", "огонь", "攻撃", "跳躍", "a\nb"]
    black, off = np.zeros((24, 512, 3), np.uint8), at_rest(1, 0)
    pictures = {Hud([name], ()).draw(black, off, "").tobytes() for name in drawable(names)}
    assert len(pictures) == len(names)


def test_text_is_cut_to_its_width():
    small = font(11)
    assert fit("attack", small, 100) == "attack"
    cut = fit("attack" * 20, small, 100)
    assert cut.startswith("attackatt")
    assert cut.endswith("…")
    assert small.getlength(cut) <= 100
