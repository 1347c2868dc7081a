"""Blind case studies that were written down: done again, scored, and rendered."""

from transcoders.cli.app import ScaleName, Threads, job, start
from transcoders.cli.interpretability import bos_token
from transcoders.files import write_table


@job("device corpus.train_positions", resources="study_features", part=bos_token)
def case_studies(scale: ScaleName, threads: Threads = None) -> None:
    """Carry out the case studies of a scale again, and score their hypotheses: Table 4."""
    import pandas as pd

    from transcoders.case_studies.scripts import TABLE4_COLUMNS, carry_out, load_script

    _, layout, device = start("case-studies", scale, threads)
    rows = [
        carry_out(path.stem, load_script(path), scale, layout.carried_out(path.stem), device)
        for path in sorted(layout.study_scripts.glob("*.yaml"))
    ]
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
