"""Blind case studies that were written down: done again, scored, and rendered."""

from transcoders.cli.app import ScaleName, Threads, job, start
from transcoders.files import write_table


@job("device corpus.train_positions", resources="study_features")
def case_studies(scale: ScaleName, threads: Threads = None) -> None:
    """Carry out the case studies of a scale again, and score their hypotheses: Table 4."""
    import pandas as pd

    from transcoders.case_studies.scripts import TABLE4_COLUMNS, carry_out, load_script, score
    from transcoders.case_studies.study_server import StudyFiles, marked_text
    from transcoders.interpretability.gather import load_observed, load_text
    from transcoders.models import load_tokenizer

    _, layout, device = start("case-studies", scale, threads)
    files = StudyFiles.of_scale(scale, device=device)
    tokenizer = load_tokenizer(files.model)
    text = load_text(layout.observed)
    rows = []
    for path in sorted(layout.study_scripts.glob("*.yaml")):
        script = load_script(path)
        study = carry_out(script, files, layout.carried_out(path.stem))
        layer, unit = script.layer_and_unit
        folder = files.transcoders[layer]
        silent = load_observed(files.observed, folder.name).background[:, unit] == 0
        texts = [
            marked_text(tokenizer, text.rows[row], position)
            for row, position in text.background[silent].tolist()
        ]
        weights = folder / "sae_weights.safetensors"
        rows.append(score(path.stem, script, study, texts, weights=weights))
    write_table(layout.table4, pd.DataFrame(rows, columns=TABLE4_COLUMNS))


@job("", resources="notebook")
def case_study_page(scale: ScaleName, study: str, threads: Threads = None) -> None:
    """Render a case study, as it was carried out, as a notebook and a page."""
    from transcoders.case_studies.page import study_notebook
    from transcoders.case_studies.scripts import load_script
    from transcoders.notebooks import execute_notebook

    _, layout, _ = start("case-study-page", scale, threads)
    source = layout.study_scripts / f"{study}.yaml"
    notebook = study_notebook(study, load_script(source), layout.carried_out(study), layout.table4)
    execute_notebook(notebook, str(source), layout.notebook(f"case_study_{study}"))
