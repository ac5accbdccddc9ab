"""A port for a group of processes that a test is about to start."""

import random
import socket


def free_port() -> int:
    """A port that nobody listens on, below those that systems hand out to connections.

    It is used seconds later: one of those could be some other test's by then.
    """
    draw = random.SystemRandom()
    while True:
        port = draw.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
