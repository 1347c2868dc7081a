"""What a scale takes, against what it took or what the paper says."""

from pathlib import Path

import pytest

from helpers_models import make_tiny_model
from transcoders.config import ModelFolder, TextFiles, load_scale
from transcoders.errors import UserError
from transcoders.files import read_json
from transcoders.plan import check_local, does_not_fit, make_plan, measured_rate
from workflow.running import cli

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/paper_scale.md").read_text()


def planned(scale):
    return {work.rule: work for work in make_plan(scale)}


def changed(scale, section, **values):
    part = getattr(scale, section).model_copy(update=values)
    return scale.model_copy(update={section: part})


@pytest.fixture(scope="module")
def paper():
    return load_scale(ROOT / "config/paper.yaml")


def test_cached_activations_are_those_of_the_paper(paper):
    cached = planned(changed(paper, "activations", mode="cache"))["cache_activations"]
    # 60M tokens, two 16-bit vectors: 184 GB at each of 12 layers of GPT2-small, 246 and 492 GB at
    # the Pythias' sites, and 246 at layer 0 of Pythia-410M.
    assert cached.disk / 1e9 == pytest.approx(12 * 184.3 + 2 * 245.8 + 491.5, rel=1e-3)
    assert planned(paper)["cache_activations"].disk == 0


def test_the_laptops_disk_is_what_was_measured():
    # benchmarks/README.md: activations 1,798 MB, 27 dictionaries 574 MB.
    laptop = load_scale(ROOT / "config/laptop.yaml")
    plan = planned(laptop)
    assert plan["cache_activations"].disk / 1e6 == pytest.approx(1798, rel=0.01)
    assert plan["train"].disk > 0.98e6 * len(laptop.dictionaries) * 574 / 27


def test_every_rule_that_trains_or_measures_is_counted(paper):
    plan = planned(paper)
    jobs = {rule: work.jobs for rule, work in plan.items()}
    assert jobs["fetch_model"] == jobs["tokenize"] == jobs["cache_activations"] == 3
    assert (jobs["train"], jobs["evaluate"]) == (len(paper.all_groups), len(paper.all_sites))
    assert jobs["find_circuits"] == jobs["measure_replacement"] == 1  # one model has cases
    assert plan["train"].flops and plan["evaluate"].flops
    published = planned(load_scale(ROOT / "config/published.yaml")).keys()
    assert published >= {"import_transcoder", "find_circuits"} and "train" not in published


def test_one_more_dictionary_costs_its_products_and_its_disk(paper):
    group = paper.groups[0]
    fewer = group.model_copy(update={"dictionaries": group.dictionaries[:-1]})
    less = planned(paper.model_copy(update={"groups": (fewer, *paper.groups[1:])}))["train"]
    more = planned(paper)["train"]
    product = 2 * 768 * 24_576 * 60e6
    assert 1.55 * product < more.flops - less.flops < 5 * product
    assert more.disk - less.disk == 2 * 4 * 768 * 24_576


def test_streaming_costs_passes_of_the_model_and_caching_none(paper):
    cached = planned(changed(paper, "activations", mode="cache"))
    saved = planned(paper)["train"].flops - cached["train"].flops
    blocks = sum(
        2 * 12 * (group.deepest.layer + 1) * paper.models[group.model].d_model ** 2
        for group in paper.all_groups
    )
    assert saved == pytest.approx(60e6 * blocks)


def test_what_does_not_fit_is_named_with_both_numbers(paper):
    too_long = make_plan(changed(paper, "corpus", train_contexts=10**11))
    disk, *memory = sorted(does_not_fit(too_long, ROOT / "results", 40))
    assert disk.startswith("disk: ") and "; free some, or " in disk
    assert any(each.startswith("memory: train 64 GB of 40; use ") for each in memory)


def test_the_command_prints_a_line_for_each_rule_and_fails_if_something_does_not_fit():
    given = cli(ROOT, "plan", "--scale", "paper", "--tflops", "15", "--memory", "128").stdout
    assert "DOES NOT FIT: memory" not in given
    assert all(f" {rule} " in given for rule in ("fetch_model", "train", "evaluate"))
    assert "as given" in given and "would take 3,194.9 GB" in given
    small = cli(ROOT, "plan", "--scale", "paper", "--memory", "40")
    assert small.returncode == 1
    assert "DOES NOT FIT: memory: train 64 GB of 40" in small.stdout
    assert "measured on this machine" in small.stdout
    assert 1e8 < measured_rate("cpu") < 1e14


def test_the_documented_prediction_is_what_the_command_prints(paper):
    lines = [line.strip("| ").split("|") for line in PAGE.splitlines() if line.startswith("|")]
    rows = {first.strip("* "): [cell.strip("* ") for cell in rest] for first, *rest in lines}
    plan = planned(paper)
    for rule, row in (
        ("cache_activations", "measure activations"),
        ("train", f"train, {len(paper.dictionaries)} dictionaries"),
        ("evaluate", "evaluate"),
    ):
        hours = f"{plan[rule].flops / 15e12 / 3600:.1f}"
        assert rows[row][:2] == [str(plan[rule].jobs), hours]
    hours = sum(work.flops for work in plan.values()) / 15e12 / 3600
    disk, download = (
        sum(getattr(work, key) for work in plan.values()) / 1e9 for key in ("disk", "download")
    )
    assert rows["in all"] == ["", f"{hours:.1f}", f"{disk:.1f}", f"{download:.1f}"]


def test_what_is_said_of_a_gpu_is_what_was_measured(paper):
    record = read_json(ROOT / "benchmarks/gpu.json")
    hours, sites = record["hours"], record["sites"].values()
    around = hours["measure_activations"] + hours["evaluate"]
    assert f"**{around + hours['train']:.1f} hours**" in PAGE
    assert f"{hours['measure_activations']:.1f} to measure activations" in PAGE
    assert f"{hours['train']:.1f} to train, {hours['evaluate']:.1f} to evaluate" in PAGE
    dense = hours["train_dense"]
    assert f"would take {dense:.1f} hours and everything {around + dense:.1f}." in PAGE
    for memory in (
        [site["memory"]["gb"] for site in sites],
        [site["evaluate"]["memory"]["gb"] for site in sites],
    ):
        assert f"| {' | '.join(f'{gb:.1f}' for gb in memory)} |" in PAGE
    threshold = paper.training.sparse_below_density
    assert all(site["sparse_is_faster_below_density"] > threshold for site in sites)


def test_models_and_texts_on_this_machine_are_checked_before_anything_is_fetched(
    scale, tmp_path, tiny_models
):
    def with_model(folder):
        source = ModelFolder(type="files", path=str(folder), license="none")
        model = scale.models["tiny-llama"].model_copy(update={"source": source})
        return scale.model_copy(update={"models": {"tiny-llama": model}})

    def with_text(path):
        text = TextFiles(type="files", path=str(path), license="none")
        return changed(scale, "corpus", source=[text])

    gemma = make_tiny_model("gemma2", tmp_path / "gemma2")
    (tmp_path / "texts").mkdir()
    for wrong, expected in (
        (with_model(tmp_path / "nowhere"), r"nowhere: .* found no such folder; correct `path`"),
        (with_model(gemma), "leave greater_than out of the scale file"),
        (with_text(tmp_path / "texts"), "found no file in it"),
        (with_text(tmp_path / "gone.jsonl"), r"gone\.jsonl: expected a folder with files of text"),
    ):
        with pytest.raises(UserError, match=expected):
            check_local(wrong)
    (tmp_path / "texts/a b.txt").write_text("w1 w2")
    for right in (scale, with_model(tiny_models["llama"]), with_text(tmp_path / "texts")):
        check_local(right)
