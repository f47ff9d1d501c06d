import math
import textwrap

import pytest
import yaml
from dataset_files import user_error
from hypothesis import given
from hypothesis import strategies as st

from BC_training.common.config import load_config, save_config
from BC_training.common.schema import Config
from BC_training.common.settings.typed import parse_overrides
from BC_training.common.settings.yaml_values import Plain, parse, settle

AMBIGUOUS = [
    *("0012", "2024_01_15", "12:30", "12e5", "1_000", "0x1F", "1.0"),
    *("on", "no", "True", "2024-01-15", ".inf", "-"),
]
SIGNS = ["[a]", "{a}", "*a", "&a", "!a", "@a", "a: b", "x #y", "%x", "corridor[v2]", "攻撃", "a=b", "'", '"']


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes):
        file = tmp_path / "pure_cnn.yaml"
        file.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return file

    return write


@pytest.mark.parametrize("text", [*AMBIGUOUS, *SIGNS[:-2]])
def test_a_text_setting_of_an_override_is_what_is_written(text):
    config = load_config("configs/pure_cnn.yaml", [f"logging.run_name={text}", f"training.resume={text}"])
    assert (config.logging.run_name, config.training.resume) == (text, text)


@pytest.mark.parametrize("text", AMBIGUOUS[:-1])
def test_texts_in_lists_tables_and_files_are_what_is_written(write, text):
    file = write(f"""
        dataset:
          path: {text}
          actions: [{text}, other]
          state: {{ratios: [[{text}, {text}]], relative: [{{target: [{text}, a], origin: [b, c], angle: {text}}}]}}
        evaluation: {{thresholds: {{{text}: 0.25}}, exclusive: [[{text}, other]]}}
        logging: {{run_name: {text}, wandb: {{tags: [{text}]}}}}
    """)
    overrides = [f"dataset.actions=[{text},other]", f"evaluation.thresholds={{{text}: 0.25}}"]
    for config in (load_config(file), load_config(file, overrides)):
        assert config.dataset.path == config.logging.run_name == text
        assert config.dataset.actions == (text, "other")
        assert config.dataset.state is not None
        assert set(config.dataset.state.names) == {text, "a", "b", "c"}
        assert config.evaluation.thresholds == {text: 0.25}
        assert [*map(tuple, config.evaluation.exclusive)] == [(text, "other")]
        assert config.logging.wandb.tags == (text,)


def test_a_saved_config_with_any_names_loads_back_equal(tmp_path):
    names = [*AMBIGUOUS, *SIGNS, "null", "~", "\\${x}", "\\${oc.env:HOME}"]
    listed = ",".join("'" + name.replace("'", "''") + "'" for name in names)
    thresholds = [f"evaluation.thresholds.{name}=.4" for name in names]
    config = load_config("configs/pure_cnn.yaml", [f"dataset.actions=[{listed}]", *thresholds])
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_null_is_no_text_unless_it_is_quoted():
    names = {text: load_config("configs/pure_cnn.yaml", [f"logging.run_name={text}"]).logging.run_name
             for text in ("null", "~", "", "'null'", '"null"', "'0012'")}  # fmt: skip
    assert [*names.values()] == ["pure_cnn", "pure_cnn", "pure_cnn", "null", "null", "0012"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), (".5", 0.5), ("1_0", 10), ("0.01", 0.01), ("5", 5), ("1E2", 100)],
)
def test_numbers_are_read_as_numbers(text, value):
    assert load_config("configs/pure_cnn.yaml", [f"training.learning_rate={text}"]).training.learning_rate == value


def test_leading_zeros_are_decimal_and_times_no_numbers():
    assert load_config("configs/pure_cnn.yaml", ["training.num_epochs=010"]).training.num_epochs == 10
    assert "training.num_epochs" in user_error(load_config, "configs/pure_cnn.yaml", ["training.num_epochs=1:30"])


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
))  # fmt: skip
def test_what_pyyaml_writes_is_read_back(value):
    assert settle(parse(yaml.safe_dump(value)), object) == value


@pytest.mark.parametrize(
    ("text", "value"), [(".nan", math.nan), (".inf", math.inf), ("-.inf", -math.inf), ("0x10", 16)]
)
def test_special_numbers_are_read(text, value):
    found = parse(text)
    assert isinstance(found, Plain)
    assert repr(found.value) == repr(value)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("evaluation.thresholds.Key.space=0.25", {"evaluation": {"thresholds": {"Key.space": 0.25}}}),
        ("evaluation.thresholds[Key.space]=0.25", {"evaluation": {"thresholds": {"Key.space": 0.25}}}),
        ("evaluation.thresholds.a=b=0.25", {"evaluation": {"thresholds": {"a=b": 0.25}}}),
        ("evaluation.thresholds={Key.space: 0.25}", {"evaluation": {"thresholds": {"Key.space": 0.25}}}),
        ("training[batch_size]=4", {"training": {"batch_size": 4}}),
    ],
)
def test_an_override_sets_the_key_that_it_names(item, expected):
    assert settle(parse_overrides([item], Config), Config) == expected


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("=3", "'=3' is not KEY=VALUE"),
        ("a[=3", "'a[=3' is not KEY=VALUE"),
        ("training..x=3", "'training..x=3' is not KEY=VALUE"),
        ("training.batch_size", "'training.batch_size' is not KEY=VALUE"),
        ("training.batch_size:32", "'training.batch_size:32' is not KEY=VALUE"),
        ("--fast", "'--fast' is not KEY=VALUE"),
        ("evaluation.thresholds.=1", "evaluation.thresholds: "),
    ],
)
def test_an_override_that_is_not_a_key_and_a_value_is_refused(item, message):
    assert message in user_error(load_config, "configs/pure_cnn.yaml", [item])


BOMB = "a: &a [0,0,0,0,0,0,0,0,0,0]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 10)}]\n" for before, name in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset: {path: x}\ndataset: {path: y}\n", "the key 'dataset' is there twice"),
        ("dataset:\n\tpath: x\n", "line 2"),
        ("a: &a [*a]\n", "more than 100,000 values"),
        (BOMB, "more than 100,000 values"),
        ("a: " + "[" * 9000, "nested too deeply"),
        ("a: !!python/object/apply:os.getcwd []\n", "means nothing here"),
        ("? [a]\n: 1\n", "a key is a name"),
        ("a: " + "9" * 5000, "digits"),
        ("--- {a: 1}\n--- {a: 2}\n", "single document"),
        (b"dataset: \xff\xfe", "pure_cnn.yaml"),
        ("dataset: {path: x}\ndatasett: {}\n", "unknown key 'datasett'; did you mean 'dataset'?"),
    ],
)
def test_a_faulty_file_is_one_line(write, text, message):
    assert message in user_error(load_config, write(text))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
def test_a_file_may_begin_with_a_byte_order_mark(write, encoding):
    assert load_config(write("dataset: {path: данные}\n".encode(encoding))).dataset.path == "данные"


def test_references_in_the_users_own_file_are_resolved(write, monkeypatch):
    monkeypatch.setenv("PLACE", "here")
    file = write("dataset: {path: '${oc.env:PLACE}/x'}\nlogging: {run_name: 'b${training.batch_size}'}\n"
                 "training: {batch_size: 8}\n")  # fmt: skip
    config = load_config(file)
    assert (config.dataset.path, config.logging.run_name) == ("here/x", "b8")
