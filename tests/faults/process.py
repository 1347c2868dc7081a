"""A command of this project that kills itself at a chosen moment of its writing.

Moments are counted in the interpreter's own audit events: every opening for writing, renaming,
making or removing of a path below the folders WATCHED. Nothing in the code under test knows of it.
A moment is the number of an event: SIGKILL comes just before it, and 0 is never. With ``torn``
behind the number, half of a file is cut off first: of the file that is about to take its final
name, or of the largest in such a folder. The log gets a line for each event.
"""

import os
import signal
import sys

WATCHED = ("results", "figures", "docs", ".checksums")


class Watch:
    """Counts the events and ends the process at one of them."""

    def __init__(self, moment, log):
        self.fatal = int(moment.removesuffix("torn"))
        self.torn = moment.endswith("torn")
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.tops = tuple(os.path.join(os.getcwd(), top, "") for top in WATCHED)
        self.seen = 0

    def __call__(self, event, arguments):
        if event == "open":
            flags = arguments[2]
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
        else:
            writes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
        if not writes or not isinstance(arguments[0], str | os.PathLike):
            return
        path = os.path.abspath(arguments[0])
        if not path.startswith(self.tops) or f"{os.sep}logs{os.sep}" in path:
            return
        self.seen += 1
        final = os.path.abspath(arguments[1]) if event == "os.rename" else path
        os.write(self.log, f"{event} {os.path.relpath(final)}\n".encode())
        if self.seen == self.fatal:
            if self.torn:
                below = [os.path.join(top, n) for top, _, names in os.walk(path) for n in names]
                file = max(below or [path], key=os.path.getsize)
                os.truncate(file, os.path.getsize(file) // 2)
            os.kill(os.getpid(), signal.SIGKILL)


def run_forked(folder, command, moment, log):
    """Run a command at the smoke scale in a process forked for it.

    All that it says is in ``said.log``. It runs the folder's own code, whatever the parent loaded.
    """
    os.chdir(folder)
    own = os.path.join(folder, "src")
    sys.path.insert(0, own)
    os.environ["PYTHONPATH"] = own  # of the kernels of notebooks
    for name in [name for name in sys.modules if name.partition(".")[0] == "transcoders"]:
        del sys.modules[name]
    said = os.open("said.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(said, stream)
    sys.argv[:] = ["transcoders", command[0], "--scale", "smoke", *command[1:]]
    from transcoders.cli import main

    sys.addaudithook(Watch(moment, log))
    main()
