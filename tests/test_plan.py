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


def test_every_rule_that_trains_or_measures_is_counted(paper):
    jobs = {rule: work.jobs for rule, work in planned(paper).items()}
    assert jobs["fetch_model"] == jobs["tokenize"] == jobs["cache_activations"] == 3
    assert (jobs["train"], jobs["evaluate"]) == (len(paper.all_groups), len(paper.all_sites))
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
        (group.deepest.layer + 1) * paper.models[group.model].d_model ** 2
        for group in paper.all_groups
    )
    assert saved == pytest.approx(60e6 * 2 * 12 * blocks)


def test_a_disk_that_is_too_small_is_named(paper):
    too_long = make_plan(changed(paper, "corpus", train_contexts=10**11))
    [disk] = does_not_fit(too_long, ROOT / "results", 128)
    assert disk.startswith("disk: ") and "; free some, or " in disk


def test_the_command_prints_a_line_for_each_rule_and_fails_if_something_does_not_fit():
    given = cli(ROOT, "plan", "--scale", "paper", "--tflops", "15", "--memory", "40")
    assert given.returncode == 1
    assert "DOES NOT FIT: memory: train 64 GB of 40" in given.stdout
    assert all(f" {rule} " in given.stdout for rule in ("fetch_model", "train", "evaluate"))
    assert "as given" in given.stdout and "would take 3,194.9 GB" in given.stdout
    assert 1e8 < measured_rate("cpu") < 1e14


def test_the_documented_prediction_is_what_the_command_prints(paper):
    lines = [line.strip("| ").split("|") for line in PAGE.splitlines() if line.startswith("|")]
    rows = {first.strip("* "): [cell.strip("* ") for cell in rest] for first, *rest in lines}
    plan = planned(paper)
    of_training = f"train, {len(paper.dictionaries)} dictionaries"
    for rule, row in (("cache_activations", "measure activations"), ("train", of_training)):
        hours = f"{plan[rule].flops / 15e12 / 3600:.1f}"
        assert rows[row][:2] == [str(plan[rule].jobs), hours]
    units = {"flops": 15e12 * 3600, "disk": 1e9, "download": 1e9}
    sums = {key: sum(getattr(work, key) for work in plan.values()) for key in units}
    assert rows["in all"] == ["", *(f"{sums[key] / units[key]:.1f}" for key in units)]


def test_what_is_said_of_a_gpu_is_what_was_measured(paper):
    record = read_json(ROOT / "benchmarks/gpu.json")
    hours, sites = record["hours"], record["sites"].values()
    around = hours["measure_activations"] + hours["evaluate"]
    assert f"**{around + hours['train']:.1f} hours**" in PAGE
    assert f"{hours['train']:.1f} to train, {hours['evaluate']:.1f} to evaluate" in PAGE
    dense = hours["train_dense"]
    assert f"would take {dense:.1f} hours and everything {around + dense:.1f}." in PAGE
    memory = [f"{site['memory']['gb']:.1f}" for site in sites]
    assert f"| {' | '.join(memory)} |" in PAGE
    faster_below = min(site["sparse_is_faster_below_density"] for site in sites)
    assert faster_below > paper.training.sparse_below_density


def test_models_and_texts_on_this_machine_are_checked_before_anything_is_fetched(
    scale, tmp_path, tiny_models
):
    def with_model(folder):
        source = ModelFolder(type="files", path=str(folder), license="none")
        model = scale.models["tiny-llama"].model_copy(update={"source": source})
        return scale.model_copy(update={"models": {"tiny-llama": model}})

    text = TextFiles(type="files", path=str(tmp_path / "gone.jsonl"), license="none")
    gemma = make_tiny_model("gemma2", tmp_path / "gemma2")
    for wrong, expected in (
        (with_model(tmp_path / "nowhere"), r"nowhere: .* found no such folder; correct `path`"),
        (with_model(gemma), "leave greater_than out of the scale file"),
        (changed(scale, "corpus", source=[text]), r"gone\.jsonl: expected a folder with files of"),
    ):
        with pytest.raises(UserError, match=expected):
            check_local(wrong)
    check_local(with_model(tiny_models["llama"]))
