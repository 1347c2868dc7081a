"""What a scale takes, against what it took or what the paper says."""

from pathlib import Path

import pytest

from helpers_models import make_tiny_model
from transcoders.config import ModelFolder, TextFiles, load_scale
from transcoders.errors import UserError
from transcoders.files import read_json
from transcoders.plan import check_local, make_plan, measured_rate
from workflow.running import cli

ROOT = Path(__file__).parents[1]


def plan_of(scale, *, gpu=80, memory=128):
    return make_plan(scale, results=ROOT / "results", gpu_memory_gb=gpu, memory_gb=memory)


def work(plan, rule):
    return next(work for work in plan.works if work.rule == rule)


def changed(scale, section, **values):
    part = getattr(scale, section).model_copy(update=values)
    return scale.model_copy(update={section: part})


@pytest.fixture(scope="module")
def paper():
    return load_scale(ROOT / "config/paper.yaml")


@pytest.fixture(scope="module")
def laptop():
    return load_scale(ROOT / "config/laptop.yaml")


def test_cached_activations_are_those_of_the_paper(paper):
    plan = plan_of(changed(paper, "activations", mode="cache"))
    # 60M tokens, two 16-bit vectors: 184 GB at each of 12 layers of GPT2-small, 246 and 492 GB at
    # the Pythias' sites, and 246 at layer 0 of Pythia-410M.
    assert work(plan, "cache_activations").disk / 1e9 == pytest.approx(
        12 * 184.3 + 2 * 245.8 + 491.5, rel=1e-3
    )
    assert work(plan_of(paper), "cache_activations").disk == 0


def test_the_laptops_disk_is_what_was_measured(laptop):
    # benchmarks/README.md: activations 1,798 MB, 27 dictionaries 574 MB.
    plan = plan_of(laptop)
    assert work(plan, "cache_activations").disk / 1e6 == pytest.approx(1798, rel=0.01)
    assert work(plan, "train").disk > 0.98e6 * len(laptop.dictionaries) * 574 / 27


def test_a_stream_keeps_the_whole_model_in_memory(paper):
    deeper = paper.models["pythia-1.4b"].model_copy(update={"n_layers": 34})
    models = paper.models | {"pythia-1.4b": deeper}
    more = plan_of(paper.model_copy(update={"models": models}))
    for rule in ("cache_activations", "train"):
        added = work(more, rule).gpu_memory - work(plan_of(paper), rule).gpu_memory
        assert added == 10 * 12 * 2048**2 * 4  # ten layers, all of them after the site


def test_every_rule_that_trains_or_measures_is_counted(paper):
    plan = plan_of(paper)
    jobs = {work.rule: work.jobs for work in plan.works}
    assert jobs["fetch_model"] == jobs["tokenize"] == jobs["cache_activations"] == 3
    assert jobs["train"] == len(paper.all_groups)
    assert jobs["evaluate"] == len(paper.all_sites)
    assert jobs["find_circuits"] == jobs["measure_replacement"] == 1  # one model has cases
    assert all(work.flops for work in plan.works if work.rule in ("train", "evaluate"))
    published = {w.rule for w in plan_of(load_scale(ROOT / "config/published.yaml")).works}
    assert published >= {"import_transcoder", "find_circuits"} and "train" not in published


def test_one_more_dictionary_costs_its_products_and_its_memory(paper):
    group = paper.groups[0]
    fewer = group.model_copy(update={"dictionaries": group.dictionaries[:-1]})
    less = plan_of(paper.model_copy(update={"groups": (fewer, *paper.groups[1:])}))
    more = plan_of(paper)
    product = 2 * 768 * 24_576 * 60e6
    saved = work(more, "train").flops - work(less, "train").flops
    assert 1.55 * product < saved < 5 * product
    assert work(more, "train").disk - work(less, "train").disk == 2 * 4 * 768 * 24_576


def test_streaming_costs_passes_of_the_model_and_caching_none(paper):
    cached = plan_of(changed(paper, "activations", mode="cache"))
    saved = work(plan_of(paper), "train").flops - work(cached, "train").flops
    blocks = sum(
        2 * 12 * (group.deepest.layer + 1) * paper.models[group.model].d_model ** 2
        for group in paper.all_groups
    )
    assert saved == pytest.approx(60e6 * blocks)


def test_the_papers_groups_fit_60_gb_and_24_gb_hold_three_dictionaries(paper):
    assert work(plan_of(paper), "train").gpu_memory < 60e9
    of_three = tuple(
        group.model_copy(update={"dictionaries": group.dictionaries[:3]}) for group in paper.groups
    )
    fitting = paper.model_copy(update={"groups": of_three})
    for scale, fits in ((paper, False), (fitting, True)):
        plan = plan_of(scale, gpu=24)
        assert (work(plan, "train").gpu_memory < 24e9) == fits
        assert any("GPU memory: train" in line for line in plan.does_not_fit) != fits


def test_what_does_not_fit_is_named_with_both_numbers(paper):
    plan = plan_of(paper, memory=40)
    assert "memory: train 64 GB of 40" in plan.does_not_fit
    huge = changed(paper, "corpus", train_contexts=10**11)
    assert any(line.startswith("disk: ") for line in plan_of(huge).does_not_fit)


def test_the_command_prints_a_line_a_rule_and_fails_if_something_does_not_fit():
    def run(*arguments):
        return cli(ROOT, "plan", "--scale", "paper", *arguments)

    fits = run("--tflops", "15", "--gpu-memory", "80", "--memory", "128")
    if "disk:" not in fits.stdout:  # which depends on the machine
        assert fits.returncode == 0, fits.stdout
    assert "DOES NOT FIT: GPU" not in fits.stdout
    assert all(f" {rule} " in fits.stdout for rule in ("fetch_model", "train", "evaluate"))
    assert "as given" in fits.stdout and "would take 3,194.9 GB" in fits.stdout
    small = run("--gpu-memory", "16", "--memory", "128")
    assert small.returncode == 1
    assert "DOES NOT FIT: GPU memory: train" in small.stdout
    assert "measured on this machine" in small.stdout
    assert 1e8 < measured_rate("cpu") < 1e14


def test_the_documented_prediction_is_what_the_command_prints(paper):
    page = (ROOT / "docs/paper_scale.md").read_text()
    rows = {
        cells[0].strip("* "): [cell.strip("* ") for cell in cells[1:]]
        for cells in (line.strip("|").split("|") for line in page.splitlines() if "|" in line)
        if len(cells) == 6
    }
    plan = plan_of(paper)

    documented = {
        "cache_activations": "measure activations",
        "train": f"train, {len(paper.dictionaries)} dictionaries",
        "evaluate": "evaluate",
    }
    for rule, row in documented.items():
        one = work(plan, rule)
        hours = f"{one.flops / 15e12 / 3600:.1f}"
        assert rows[row][:3] == [str(one.jobs), hours, f"{one.gpu_memory / 1e9:.1f}"]
    total = sum(one.flops for one in plan.works) / 15e12 / 3600
    disk, download = (
        sum(getattr(w, key) for w in plan.works) / 1e9 for key in ("disk", "download")
    )
    assert rows["in all"] == ["", f"{total:.1f}", "", f"{disk:.1f}", f"{download:.1f}"]


def test_what_is_said_of_a_gpu_is_what_was_measured(paper):
    page = (ROOT / "docs/paper_scale.md").read_text()
    record = read_json(ROOT / "benchmarks/gpu.json")
    hours = record["hours"]
    around = hours["measure_activations"] + hours["evaluate"]
    assert f"**{around + hours['train']:.1f} hours**" in page
    assert f"{hours['measure_activations']:.1f} to measure activations" in page
    assert f"{hours['train']:.1f} to train, {hours['evaluate']:.1f} to evaluate" in page
    dense = hours["train_dense"]
    assert f"would take {dense:.1f} hours and everything {around + dense:.1f}." in page
    memory: dict[str, list[str]] = {"training": [], "evaluating": []}
    for site in record["sites"].values():
        training, evaluating = site["memory"], site["evaluate"]["memory"]
        for job, found in (("training", training), ("evaluating", evaluating)):
            assert found["gb"] < found["bound_gb"]
            memory[job].append(f"{found['gb']:.1f}, {found['bound_gb']:.1f}")
        assert site["sparse_is_faster_below_density"] > paper.training.sparse_below_density
    for cells in memory.values():
        assert f"| {' | '.join(cells)} |" in page


def test_fewer_cores_than_threads_are_remarked_before_a_job_refuses(laptop, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    assert not any("threads" in remark for remark in plan_of(laptop).remarks)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    [said] = [remark for remark in plan_of(laptop).remarks if "threads" in remark]
    assert "has 1 cores and cache_activations must run on 2 threads" in said
    assert not plan_of(laptop).does_not_fit


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

    check_local(scale)
    check_local(with_model(tiny_models["llama"]))
    with pytest.raises(UserError, match=r"nowhere: .* found no such folder; correct `path`"):
        check_local(with_model(tmp_path / "nowhere"))
    gemma = make_tiny_model("gemma2", tmp_path / "gemma2")
    with pytest.raises(UserError, match="leave greater_than out of the scale file"):
        check_local(with_model(gemma))
    (tmp_path / "texts").mkdir()
    with pytest.raises(UserError, match="found no file in it"):
        check_local(with_text(tmp_path / "texts"))
    (tmp_path / "texts/a b.txt").write_text("w1 w2")
    check_local(with_text(tmp_path / "texts"))
    with pytest.raises(UserError, match=r"missing\.jsonl: expected a folder with files of text"):
        check_local(with_text(tmp_path / "missing.jsonl"))
