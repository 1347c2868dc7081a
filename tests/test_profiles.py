"""Every profile holds options that Snakemake and the executors know, with values that they take."""

from pathlib import Path

import jsonschema
import pytest
import yaml
from snakemake.cli import get_argument_parser

REPOSITORY = Path(__file__).parents[1]
PROFILES = {path.parent.name: path for path in (REPOSITORY / "profiles").glob("*/config.yaml")}
SCHEMA = yaml.safe_load((REPOSITORY / "tests/profile.schema.yaml").read_text())


def load(content, folder):
    """Parse a profile as Snakemake does, the settings of an executor by the schema instead."""
    jsonschema.validate(content, SCHEMA)
    rest = {key: value for key, value in content.items() if key not in SCHEMA["properties"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(rest))
    return get_argument_parser(profiles=[str(folder)]).parse_args([])


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_profile_is_read_without_complaint_and_a_cluster_gets_resources_from_the_scale_file(
    name, tmp_path
):
    profile = yaml.safe_load(PROFILES[name].read_text())
    assert f"`{name}`" in (REPOSITORY / "profiles/README.md").read_text()
    options = load(profile, tmp_path)
    assert options.rerun_incomplete and options.show_failed_logs
    with pytest.raises(SystemExit):
        load(profile | {"retrys": 2}, tmp_path)
    if name != "default":
        assert (profile["executor"], options.retries, options.jobs) == (name, 2, 100)
        # A limit of the whole run would cut what a single job may ask for.
        assert not {"resources", "cores", "max-threads", "set-resources"} & profile.keys()
        given = [entry.split("=")[0] for entry in profile["default-resources"] or []]
        assert not set(given) & {"mem_mb", "runtime", "threads", "gpu"}
