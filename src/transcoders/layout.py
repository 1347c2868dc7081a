"""Where every file of a scale lives, relative to the root of the repository."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transcoders.errors import UserError

ARTICLE = Path("docs/index.html")
"""The page that a reader opens first: the landing page of the scale with the most evidence."""


class _File:
    """A file or folder below a scale's results."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __get__(self, layout: "Layout", _: type) -> Path:
        return layout.results / self.path


class _Named(_File):
    """The same for each name of a model, site or the like."""

    # It gives a function of a name where its parent gives a file.
    def __get__(self, layout: "Layout", _: type) -> Callable[[str], Path]:  # type: ignore[override]
        return lambda name: layout.results / self.path.format(plain(name))


@dataclass(frozen=True)
class Layout:
    """Paths of one scale. The workflow and the command line both take theirs from here.

    A name in a path that would lead to another folder raises a :class:`UserError`.
    """

    scale: str

    def __post_init__(self) -> None:
        # Snakemake turns `--config scale=135` into a number.
        object.__setattr__(self, "scale", plain(str(self.scale)))

    documents = _File("corpus/documents.parquet")
    corpus_manifest = _File("corpus/manifest.json")
    evaluation = _File("evaluation.csv")
    evaluation_by_document = _File("evaluation_by_document.csv")
    gap_by_tokens = _File("gap_by_tokens.csv")
    gap_by_tokens_fit = _File("gap_by_tokens_fit.csv")
    why = _File("why.csv")
    claims = _File("claims.csv")
    environment = _File("environment.json")
    feature_checks = _File("circuits/feature_checks.csv")
    replacement = _File("circuits/replacement.csv")
    greater_than = _File("greater_than")
    observed = _File("interpretability/observed")
    features = _File("interpretability/features")
    """The feature browser."""
    activity = _Named("interpretability/activity/{}")
    """Of a model: where the features that get labels are active."""
    automatic = _File("interpretability/automatic.csv")
    automatic_summary = _File("interpretability/automatic_summary.csv")
    ratings = _File("interpretability/ratings")
    table1 = _File("interpretability/table1.csv")
    rated_features = _File("interpretability/ratings.csv")
    systematic = _File("case_studies/systematic.csv")
    systematic_summary = _File("case_studies/systematic_summary.csv")
    table4 = _File("case_studies/table4.csv")
    labels = _File("labels.csv")

    model = _Named("models/{}")
    tokens = _Named("corpus/{}")
    """Of a model."""
    activations = _Named("activations/{}")
    """Of a site."""
    dictionary = _Named("dictionaries/{}")
    checkpoint = _Named("checkpoints/{}.safetensors")
    """Of the training job of a group that is under way, or was killed."""
    site_evaluation = _Named("evaluation/{}.csv")
    site_evaluation_by_document = _Named("evaluation/{}_by_document.csv")
    circuit = _Named("circuits/{}")
    carried_out = _Named("case_studies/{}")
    """A case study that was done again."""
    notebook = _Named("notebooks/{}.ipynb")

    @property
    def results(self) -> Path:
        """The folder of everything but figures."""
        return Path("results") / self.scale

    @property
    def figures(self) -> Path:
        """The folder of figures."""
        return Path("figures") / self.scale

    def figure(self, name: str) -> Path:
        """A file in the folder of figures."""
        return self.figures / plain(name)

    def features_of(self, dictionary: str) -> Path:
        """A dictionary's page in the feature browser. A feature's number may follow it, after #."""
        return self.features / plain(dictionary) / "index.html"

    @property
    def config(self) -> Path:
        """The scale file."""
        return Path("config") / f"{self.scale}.yaml"

    @property
    def listed_claims(self) -> Path:
        """The paper's claims, which are the same for every scale."""
        return Path("config/claims.yaml")

    @property
    def landing_page(self) -> Path:
        """The page to begin with."""
        return ARTICLE if self.scale == "overnight" else self.results / "index.html"

    @property
    def edited_labels(self) -> Path:
        """Labels that people wrote by hand: an input, which need not exist."""
        return Path("workflow/labels") / f"{plain(self.scale)}.csv"

    @property
    def study_scripts(self) -> Path:
        """Blind studies that analysts wrote: an input, which need not exist."""
        return Path("workflow/case_studies") / self.scale


def plain(name: str) -> str:
    """A name that is one part of a path and one word of a command, or a wildcard for one.

    Raises:
        UserError: it is a path, or has characters with a meaning in a command.
    """
    if re.fullmatch(r"\w[\w.-]*|\{\w+\}", name) is None:
        raise UserError(
            f"{name!r}: expected a name of letters, digits and `_ . -`, found other characters or "
            "none; leave out folders and suffix, or rename the file"
        )
    return name
