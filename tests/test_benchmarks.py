"""The benchmarks that need hardware or another framework to be of use run here, too."""

import json
import sys
from io import StringIO
from pathlib import Path

import pytest
from pages import Page
from rich.console import Console

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import gpu
import init_from


@pytest.fixture
def options(tmp_path, monkeypatch):
    """Options of a short run, with one small net."""
    config = tmp_path / "pure_cnn.yaml"
    config.write_text("dataset: {path: x}\nmodel: {conv_features: [4], conv_strides: [2], dense_features: [8]}\n")
    monkeypatch.setattr(gpu, "NETS", {"pure_cnn": str(config)})
    return gpu.make_parser().parse_args(
        ["--sizes", "24x32", "--batches", "4", "--steps", "1", "--rounds", "1", "--frames", "16"]
    )


def test_all_measurements_run_on_a_cpu_and_come_out_on_a_page(options, tmp_path):
    cells = gpu.cells(options)
    one_of_each = {cell["what"]: cell for cell in cells if not cell["deterministic"]}
    assert set(one_of_each) == set(gpu.CELLS)
    results = [cell | gpu.CELLS[what](cell) for what, cell in one_of_each.items()]
    assert all(r["frames_per_second"] > 0 for r in results if r["what"] != "latency")
    assert all(0 <= r["data_wait"] <= 1 for r in results if r["what"] == "loop")
    assert all(r["flops_a_frame"] > 1e4 for r in results if r["what"] == "step")
    assert all(0 < r["p50"] <= r["p99"] for r in results if r["what"] == "latency")
    results.append(cells[0] | {"error": "RESOURCE_EXHAUSTED: <out of memory>"})
    out = tmp_path / "gpu.html"
    gpu.write_page(out, "a device", results, "benchmarks/gpu.py")
    page = Page(out.read_text(encoding="utf-8"))
    assert len(page.of("tr")) == len(results) + 3
    assert "failed: RESOURCE_EXHAUSTED: <out of memory>" in page.text
    assert len(json.loads(out.with_suffix(".json").read_text())["results"]) == len(results)


def test_a_measurement_that_fails_says_why_and_leaves_the_others_alone(options):
    cell = gpu.cells(options)[0] | {"net": "no_net"}
    assert gpu.measure(cell)["error"] == "KeyError: 'no_net'"


@pytest.mark.parametrize(
    ("device", "peak"),
    [("NVIDIA H200", 989e12), ("NVIDIA A100-SXM4-40GB", 312e12), ("NVIDIA L40S", None), ("cpu", None)],
)
def test_the_peak_is_that_of_the_device_s_data_sheet(device, peak):
    assert gpu.peak_flops(device, "bfloat16") == peak


@pytest.mark.slow
def test_a_trunk_of_another_scenario_is_compared_with_a_fresh_start(tmp_path):
    tiny = ["--episodes=2", "--trunk-episodes=3", "--epochs=1", "--trunk-epochs=1", "--size", "24", "32", "--plays=2"]
    net = ["model.conv_features=[4]", "model.conv_strides=[4]", "model.dense_features=[8]", "training.batch_size=2"]
    net += ["system.workers=1", "dataset.record.noise=0"]
    plan = init_from.make_plan(
        [f"--folder={tmp_path}", "--scenario=basic", "--trunk", "basic", "deadly_corridor", *tiny, *net]
    )
    screen = Console(file=StringIO(), width=200)
    results = init_from.measure(plan, screen)
    assert isinstance(screen.file, StringIO)
    assert screen.file.getvalue().count("begins at") == 1
    assert [len(found.returns) for found in results.values()] == [2, 2]
    assert init_from.table(plan, results).count("\n| from") == 2
