# What the other rule files share.

CONDA = "../../environment.yml"
LOGS = LAYOUT.results / "logs"


def cli(command):
    """The command line of a subcommand, to which a rule adds its arguments."""
    return f"python -m transcoders {command} --scale {SCALE.name}"


def given(rule):
    """Threads, memory and minutes that the scale file gives a rule."""
    return getattr(SCALE.resources, rule)


def settings(*sections, **more):
    """Sections of the scale file as a parameter of a rule: when they change, the rule runs again."""
    everything = SCALE.model_dump(mode="json")
    return {"seed": SCALE.seed} | {key: everything[key] for key in sections} | more
