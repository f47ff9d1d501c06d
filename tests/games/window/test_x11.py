"""Real windows of a real X server, without a window manager and with one."""

import contextlib
import gc
import time

import numpy as np
import pytest
from dataset_files import user_error
from scripted_person import ScriptedPerson, screen
from toy_windows import ToyWindow, openbox, wait_until
from Xlib import X

from BC_training.common.keybinds.button_names import button_of
from BC_training.games.window.desktop import NotShown, Region, WindowQuery
from BC_training.games.window.platform import open_desktop

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture(scope="module", params=["alone", "openbox"])
def has_manager(request, tmp_path_factory):
    with screen():
        managed = request.param == "openbox"
        with openbox(tmp_path_factory.mktemp("home")) if managed else contextlib.nullcontext():
            yield managed


@pytest.fixture
def desktop(has_manager):
    with contextlib.closing(open_desktop()) as opened:
        yield opened


@pytest.fixture
def windows(has_manager):
    """Opens windows, which are closed at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(contextlib.closing(ToyWindow(*args, **kwargs)))


@pytest.fixture
def person(has_manager):
    with contextlib.closing(ScriptedPerson(None)) as someone:
        yield someone


def colours(picture):
    return {tuple(map(int, c)) for c in np.unique(picture.reshape(-1, 3), axis=0)}


def find(desktop, text):
    return desktop.find(WindowQuery.parse(text))


def test_a_window_is_found_by_its_title_its_number_and_its_process(desktop, windows):
    game = windows("Toy — the game")
    for text in ("toy — THE game", "the game", f"id:{game.id:#x}", f"id:{game.id}"):
        assert find(desktop, text).id == game.id
    window = find(desktop, "toy")
    assert find(desktop, f"pid:{window.pid}") == window
    assert str(window) == f"'Toy — the game' (id:{game.id:#x}, pid:{window.pid})"


def test_none_and_several_windows_are_listed(desktop, windows):
    first, second = windows("Toy"), windows("Toy, again")
    assert find(desktop, "toy").id == first.id  # the whole title
    assert find(desktop, "again").id == second.id
    several = user_error(lambda: find(desktop, "to"))
    assert "2 windows are meant by 'to'" in several
    assert f"id:{first.id:#x}" in several
    assert f"'Toy, again' (id:{second.id:#x}" in several
    assert f"'Toy' (id:{first.id:#x}" in user_error(lambda: find(desktop, "chess"))
    assert "no window is meant by 'pid:1'" in user_error(lambda: find(desktop, "pid:1"))
    assert "no window is meant by 'id:0x7'" in user_error(lambda: find(desktop, "id:0x7"))


def test_a_picture_has_the_window_s_colours_where_they_are(desktop, windows):
    game = windows("Toy", (100, 60), colour=0xFF0000)
    game.paint(0x00FF00, 10, 20, 30, 5)
    picture = desktop.grab(game.id)
    assert picture.shape == (60, 100, 3)
    assert picture.dtype == np.uint8
    expected = np.full((60, 100, 3), RED)
    expected[20:25, 10:40] = GREEN
    np.testing.assert_array_equal(picture, expected)
    np.testing.assert_array_equal(desktop.grab(game.id, Region(5, 19, 10, 4)), expected[19:23, 5:15])
    game.paint(0x0000FF)
    np.testing.assert_array_equal(picture, expected)  # it is the caller's
    assert colours(desktop.grab(game.id)) == {BLUE}


def test_what_covers_a_window_is_not_in_its_picture_nor_where_the_screen_ends(desktop, windows):
    game, other = windows("Toy"), windows("Other", (400, 300), (0, 0), colour=0x0000FF)
    other.cover()
    assert colours(desktop.grab(game.id)) == {RED}
    game.place(x=-60, y=560)
    place = desktop.geometry(game.id)
    assert place.x < 0
    assert place.y + place.height > 600
    assert colours(desktop.grab(game.id)) == {RED}
    assert desktop.grab(game.id).shape == (80, 120, 3)


def test_a_window_is_followed_when_it_is_moved_and_gets_another_size(desktop, windows):
    game = windows("Toy", (120, 80), (50, 40))
    desktop.grab(game.id)
    for size in ((200, 150), (64, 32), (300, 210)):
        game.place(x=size[0], y=size[1], width=size[0], height=size[1])
        place = desktop.geometry(game.id)
        assert (place.width, place.height, place.state) == (*size, "shown")
        game.paint(0x00FF00)
        picture = desktop.grab(game.id)
        assert picture.shape == (size[1], size[0], 3)
        assert colours(picture) == {GREEN}
        assert (place.x, place.y) == game.corner()
    assert "300x210" in user_error(lambda: desktop.grab(game.id, Region(100, 0, 201, 10)))


@pytest.mark.parametrize("how", ["hide", "minimise"])
def test_a_hidden_window_is_noticed_at_once_and_shows_its_new_contents_later(desktop, windows, has_manager, how):
    if how == "minimise" and not has_manager:
        how = "hide"  # nobody is there to do it
    game = windows("Toy")
    assert colours(desktop.grab(game.id)) == {RED}
    for colour in (GREEN, BLUE):
        getattr(game, how)()
        assert desktop.geometry(game.id).state == "hidden"
        with pytest.raises(NotShown, match="hidden: show it again") as caught:
            desktop.grab(game.id)
        assert caught.value.state == "hidden"
        game.show()
        game.paint(int.from_bytes(bytes(colour), "big"))
        assert colours(desktop.grab(game.id)) == {colour}
        assert desktop.geometry(game.id).state == "shown"


def test_a_window_that_was_hidden_and_shown_between_two_pictures_is_not_frozen(desktop, windows):
    game = windows("Toy")
    desktop.grab(game.id)
    game.hide()
    game.show()
    game.paint(0x00FF00)
    assert colours(desktop.grab(game.id)) == {GREEN}


def test_a_closed_window_is_noticed_at_once(desktop, windows):
    game = windows("Toy")
    desktop.grab(game.id)
    game.destroy()
    with pytest.raises(NotShown, match="closed: start the game again") as caught:
        desktop.grab(game.id)
    assert caught.value.state == desktop.geometry(game.id).state == "closed"
    assert not desktop.has_focus(game.id)
    assert not desktop.has_pointer(game.id)


def test_the_focus_and_the_pointer_are_where_they_are(desktop, windows, person):
    game, other = windows("Toy", place=(50, 40)), windows("Other", place=(300, 300))
    for one, another in ((game, other), (other, game)):
        one.focus()
        assert desktop.has_focus(one.id)
        assert not desktop.has_focus(another.id)
    person.point_at(*game.corner(10, 10))
    assert desktop.has_pointer(game.id)
    assert not desktop.has_pointer(other.id)
    other.place(x=40, y=30)
    other.cover()
    assert desktop.has_pointer(other.id)
    assert not desktop.has_pointer(game.id)


def test_what_is_injected_reaches_the_window_and_comes_back_as_events(desktop, windows, person):
    game = windows("Toy")
    game.focus()
    person.point_at(*game.corner(40, 40))
    desktop.events()
    began = time.perf_counter()
    done = [("key", "W"), ("key", "LSHIFT"), ("key", "F5"), ("key", "NUMPAD4"), ("mouse", "LEFT"), ("mouse", "X2")]
    for button in done:
        desktop.press(button)
        desktop.press(button)  # is held already
        assert desktop.held() >= {button} or button == ("mouse", "X2")  # X11 does not tell
    for button in (*done, ("key", "A")):  # the last was not pressed
        desktop.release(button)
    assert not desktop.held()
    events = desktop.events()
    assert [(e.kind, e.button) for e in events] == [(kind, b) for kind in ("press", "release") for b in done]
    assert all(e.source == "own" for e in events)
    stamps = [e.time for e in events]
    assert stamps == sorted(stamps)
    assert began - 0.002 <= stamps[0]
    assert stamps[-1] <= time.perf_counter()
    keys = {X.KeyPress, X.KeyRelease}
    seen = game.seen()
    assert len([kind for kind, _ in seen if kind in keys]) == 8
    assert len(seen) == 12


def test_a_person_is_told_from_this_program_and_keys_from_before_are_known(desktop, windows, person):
    windows("Toy").focus()
    person.press("d")
    assert desktop.held() == {("key", "D")}
    desktop.events()
    desktop.press(("key", "W"))
    assert ("key", "W") in desktop.held()  # the server has it before what comes from another program
    person.tap("Left", "KP_Enter")
    desktop.release_all()
    assert ("key", "W") not in desktop.held()  # likewise
    person.release("d")
    found = [(e.kind, e.button[1], e.source) for e in desktop.events()]
    assert found == [
        ("press", "W", "own"),
        *(("press", "LEFT", "program"), ("press", "NUMPADENTER", "program")),
        *(("release", "LEFT", "program"), ("release", "NUMPADENTER", "program")),
        ("release", "W", "own"),
        ("release", "D", "program"),
    ]


def test_mouse_counts_and_wheel_are_exact_also_while_a_game_has_the_mouse(desktop, windows, person):
    game = windows("Toy")
    game.focus()
    person.point_at(*game.corner(50, 40))
    desktop.move(-20, 7)
    desktop.events()
    assert person.pointer() == game.corner(30, 47)
    game.take_mouse()
    moves = [(-20, 7), (400, 0), (0, -333), (32_000, 1), (-70_000, 0)] * 5
    for x, y in moves:
        desktop.move(x, y)
    person.move(-5, 3)
    desktop.scroll(1, -2)
    events = desktop.events()
    own = [(e.x, e.y) for e in events if e.kind == "motion" and e.source == "own"]
    assert np.sum(own, axis=0).tolist() == np.sum(moves, axis=0).tolist()
    assert [(e.x, e.y) for e in events if e.kind == "motion" and e.source == "program"] == [(-5, 3)]
    wheel = [(e.button[1], e.x, e.y) for e in events if e.kind == "wheel"]
    assert wheel == [("WHEELDOWN", 0, -1), ("WHEELDOWN", 0, -1), ("WHEELRIGHT", 1, 0)]


def test_a_key_that_is_held_does_not_repeat(desktop, windows, person):
    game = windows("Toy")
    game.focus()
    desktop.events()
    person.press("w")
    time.sleep(1.0)  # the server repeats after 0.66 s
    person.release("w")
    assert len(game.seen()) > 2
    assert [(e.kind, e.button) for e in desktop.events()] == [("press", ("key", "W")), ("release", ("key", "W"))]


@pytest.mark.parametrize("also", [(), ("Caps_Lock",), ("Num_Lock",), ("Shift_L",), ("Control_L", "Alt_L")])
def test_the_game_does_not_see_hotkeys_whatever_else_is_held(desktop, windows, person, also):
    game = windows("Toy")
    game.focus()
    desktop.grab_hotkeys(["F9", "F12"])
    (person.tap if "Lock" in "".join(also) else person.press)(*also)
    game.seen(), desktop.events()
    person.tap("F9")
    person.tap("F12")
    person.tap("w")
    assert [detail for kind, detail in game.seen() if kind == X.KeyPress] == [person.code("w")]
    events = desktop.events()
    assert [e.button[1] for e in events if e.kind == "hotkey"] == ["F9", "F12"]
    assert {e.button[1] for e in events if e.kind != "hotkey"} == {"W"}
    (person.tap if "Lock" in "".join(also) else person.release)(*also)
    desktop.grab_hotkeys([])
    game.seen(), desktop.events()
    person.tap("F9")
    assert len(game.seen()) == 2
    assert [e.kind for e in desktop.events()] == ["press", "release"]


def test_a_hotkey_that_another_program_has_is_refused_and_the_others_are_free(desktop, windows, person):
    game = windows("Toy")
    game.focus()
    with contextlib.closing(open_desktop()) as other:
        other.grab_hotkeys(["F10"])
        assert "another program has the hotkey F10" in user_error(lambda: desktop.grab_hotkeys(["F9", "F10"]))
        game.seen()
        person.tap("F9")
        assert len(game.seen()) == 2
    desktop.grab_hotkeys(["F10"])
    assert "no key CRUMPET" in user_error(lambda: desktop.grab_hotkeys(["crumpet"]))
    assert "'' is no key" in user_error(lambda: desktop.grab_hotkeys([""]))


def test_names_that_are_no_button_are_refused(desktop):
    assert "no key CRUMPET" in user_error(lambda: desktop.press(("key", "CRUMPET")))
    assert "no mouse BUTTON44" in user_error(lambda: desktop.press(("mouse", "BUTTON44")))
    assert "no pad A" in user_error(lambda: desktop.press(("pad", "A")))


NAMES = "w 1 F1 space Return Escape Shift_L Control_R Alt_L Super_L Tab Left Prior KP_7 KP_Add minus bracketleft less"


def test_keys_have_the_names_of_keybinds_files(desktop, windows, person):
    windows("Toy").focus()
    desktop.events()
    person.tap(*NAMES.split())
    presses = [e.button for e in desktop.events() if e.kind == "press"]
    assert presses == [button_of("key", name) for name in NAMES.split()]


def test_what_is_held_is_released_when_the_desktop_is_closed(desktop, windows, person):
    game = windows("Toy")
    game.focus()
    person.point_at(*game.corner(9, 9))
    with contextlib.closing(open_desktop()) as player:
        player.press(("key", "W"))
        player.press(("mouse", "RIGHT"))
        wait_until(lambda: desktop.held() == {("key", "W"), ("mouse", "RIGHT")})  # window managers hold clicks back
    wait_until(lambda: not desktop.held())
    player.close()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # python-xlib leaves a socket that does not connect
def test_without_a_display_one_line_says_so(monkeypatch):
    for display in (":4077", "nonsense", ""):
        monkeypatch.setenv("DISPLAY", display)
        assert "there is no X11 display" in user_error(open_desktop)
    gc.collect()
