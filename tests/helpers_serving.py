"""Servers of this machine, for as long as a test asks them."""

import threading
from contextlib import contextmanager


@contextmanager
def serving(server):
    """Serve in the background; gives the port."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
