# Scale -> config, validation, includes, target rules; nothing else.
#
#   snakemake --cores all                          the laptop scale
#   snakemake --cores all --config scale=smoke     another scale: a file in config/
#   snakemake --cores all figure3                  one figure, from the committed tables

import os
import sys
import time
from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")

STARTED = time.time()
SMALL_FILE = 16 * 2**20  # bytes; hashing all below takes a moment

# Jobs run this checkout's code with the interpreter that runs snakemake, whether or not the
# environment is activated and the package installed.
SOURCE = os.path.join(workflow.basedir, "src")
INTERPRETER = os.path.dirname(sys.executable)
sys.path.insert(0, SOURCE)
os.environ.update(
    PYTHONPATH=SOURCE, PATH=INTERPRETER + os.pathsep + os.getenv("PATH", "")
)

from transcoders.checksums import check_folders
from transcoders.config import load_scale
from transcoders.errors import UserError
from transcoders.files import date_back
from transcoders.layout import Layout
from transcoders.process import set_environment

try:
    LAYOUT = Layout(config.get("scale", "laptop"))
    SCALE = load_scale(LAYOUT.config)
    if {*"{}"} & {*str(Path.cwd())}:
        raise UserError(
            f"{Path.cwd()}: expected a path without braces, which Snakemake takes for "
            "wildcards; move the checkout"
        )
    set_environment(SCALE.instruction_set)  # of all jobs
    if workflow.is_main_process:  # jobs check what they read
        date_back([LAYOUT.results, LAYOUT.config.parent, LAYOUT.study_scripts])
        check_folders([LAYOUT.results, LAYOUT.figures], largest=SMALL_FILE)
except UserError as error:
    raise WorkflowError(str(error))


onstart:
    print(
        f"Scale {SCALE.name}: a whole run takes {SCALE.takes}. Finished jobs are not repeated."
    )


onsuccess:
    # The article is new after a whole run or `notebooks`, and not after, say, one figure.
    page = LAYOUT.landing_page
    new = page.exists() and page.stat().st_mtime >= STARTED
    print(f"Done. Open {page} in a browser." if new else "Done.")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


wildcard_constraints:
    model=any_of(SCALE.models),
    case=any_of(case.name for case in SCALE.circuits.cases),
    site=any_of(site.name for site in SCALE.all_sites),
    imported=any_of(entry.name for entry in SCALE.imported_transcoders),


include: "workflow/rules/models.smk"
include: "workflow/rules/corpus.smk"


if SCALE.groups:

    include: "workflow/rules/activations.smk"
    include: "workflow/rules/training.smk"
    include: "workflow/rules/evaluation.smk"


if SCALE.imported:

    include: "workflow/rules/importing.smk"


include: "workflow/rules/circuits.smk"
include: "workflow/rules/greater_than.smk"
include: "workflow/rules/interpretability.smk"
include: "workflow/rules/notebooks.smk"


# `all` asks for the weights, which no commit holds, so that it really runs in a fresh clone.
# It asks for tables, too: a job that fails removes its own, and pages that were made from them
# earlier would pass for new. The other targets rebuild figures and pages from the committed tables.
rule all:
    default_target: True
    input:
        WEIGHTS,
        rules.figures.input,
        rules.notebooks.input,
        CIRCUIT_PAGES,
        FEATURE_BROWSER,
        [page.tables for page in PAGES],
        SITE_TABLES if SCALE.groups else [],
