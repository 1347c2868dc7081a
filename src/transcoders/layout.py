"""Where every file of a scale lives, relative to the root of the repository."""

from dataclasses import dataclass
from pathlib import Path

from transcoders.errors import UserError


@dataclass(frozen=True)
class Layout:
    """Paths of one scale. The workflow and the command line both take theirs from here.

    A name in a path that would lead to another folder raises a :class:`UserError`.
    """

    scale: str

    @property
    def results(self) -> Path:
        return Path("results") / plain(self.scale)

    @property
    def figures(self) -> Path:
        return Path("figures") / plain(self.scale)

    @property
    def config(self) -> Path:
        return Path("config") / f"{plain(self.scale)}.yaml"

    def model(self, model: str) -> Path:
        return self.results / "models" / plain(model)

    @property
    def documents(self) -> Path:
        return self.results / "corpus" / "documents.parquet"

    @property
    def corpus_manifest(self) -> Path:
        return self.results / "corpus" / "manifest.json"

    def tokens(self, model: str) -> Path:
        return self.results / "corpus" / plain(model)

    def activations(self, site: str) -> Path:
        return self.results / "activations" / plain(site)

    def dictionary(self, name: str) -> Path:
        return self.results / "dictionaries" / plain(name)

    def checkpoint(self, group: str) -> Path:
        """Of a training job that is under way, or was killed."""
        return self.results / "checkpoints" / f"{plain(group)}.safetensors"

    def site_evaluation(self, site: str) -> Path:
        return self.results / "evaluation" / f"{plain(site)}.csv"

    def site_evaluation_by_document(self, site: str) -> Path:
        return self.results / "evaluation" / f"{plain(site)}_by_document.csv"

    @property
    def evaluation(self) -> Path:
        return self.results / "evaluation.csv"

    @property
    def evaluation_by_document(self) -> Path:
        return self.results / "evaluation_by_document.csv"

    @property
    def listed_claims(self) -> Path:
        """The paper's, whatever the scale."""
        return Path("config/claims.yaml")

    @property
    def landing_page(self) -> Path:
        """Of the committed scale at the place where a reader begins."""
        return Path("docs/index.html") if self.scale == "laptop" else self.results / "index.html"

    @property
    def claims(self) -> Path:
        return self.results / "claims.csv"

    @property
    def environment(self) -> Path:
        return self.results / "environment.json"

    @property
    def learning_rates(self) -> Path:
        return self.results / "learning_rates.csv"

    def circuit(self, case: str) -> Path:
        return self.results / "circuits" / plain(case)

    @property
    def feature_checks(self) -> Path:
        return self.results / "circuits" / "feature_checks.csv"

    @property
    def greater_than(self) -> Path:
        return self.results / "greater_than"

    @property
    def observed(self) -> Path:
        return self.results / "interpretability" / "observed"

    @property
    def automatic(self) -> Path:
        return self.results / "interpretability" / "automatic.csv"

    @property
    def automatic_summary(self) -> Path:
        return self.results / "interpretability" / "automatic_summary.csv"

    @property
    def ratings(self) -> Path:
        return self.results / "interpretability" / "ratings"

    @property
    def table1(self) -> Path:
        return self.results / "interpretability" / "table1.csv"

    def feature_pages(self, dictionary: str) -> Path:
        return self.results / "interpretability" / "features" / plain(dictionary)

    @property
    def systematic(self) -> Path:
        return self.results / "case_studies" / "systematic.csv"

    @property
    def systematic_summary(self) -> Path:
        return self.results / "case_studies" / "systematic_summary.csv"

    @property
    def study_scripts(self) -> Path:
        """What analysts wrote: an input, not a result."""
        return Path("workflow/case_studies") / plain(self.scale)

    def carried_out(self, study: str) -> Path:
        return self.results / "case_studies" / plain(study)

    @property
    def table4(self) -> Path:
        return self.results / "case_studies" / "table4.csv"

    def notebook(self, name: str) -> Path:
        return self.results / "notebooks" / f"{plain(name)}.ipynb"

    def figure(self, name: str) -> Path:
        return self.figures / plain(name)


def plain(name: str) -> str:
    """A name that stays where it is put: one part of a path.

    Raises:
        UserError: it leads elsewhere.
    """
    if name in ("", ".", "..") or "/" in str(name):
        raise UserError(f"{name!r}: expected a name, found a path; leave out folders and suffix")
    return name
