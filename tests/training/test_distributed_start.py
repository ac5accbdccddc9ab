"""The port at which processes meet."""

import socket

import pytest

from fastclip.errors import UserError
from fastclip.training.distributed import check_port


def places(monkeypatch, **values):
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_a_port_in_use_is_told_by_the_first_of_several_processes(monkeypatch):
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen(1)
        port = str(other.getsockname()[1])
        places(monkeypatch, RANK="0", WORLD_SIZE="2", MASTER_PORT=port)
        with pytest.raises(UserError, match=rf"^port {port}, .* launcher another --master_port"):
            check_port()
        places(monkeypatch, RANK="1", WORLD_SIZE="2", MASTER_PORT=port)
        check_port()
        # torchrun's agent holds the port itself; one process alone takes any that is free.
        agent = {"TORCHELASTIC_USE_AGENT_STORE": "True"}
        places(monkeypatch, RANK="0", WORLD_SIZE="2", MASTER_PORT=port, **agent)
        check_port()
        places(monkeypatch, RANK="0", WORLD_SIZE="1", MASTER_PORT=port)
        check_port()
    places(monkeypatch, RANK="0", WORLD_SIZE="2", MASTER_PORT=port)
    check_port()


@pytest.mark.parametrize("port", ["", "many", "70000", "-1"])
def test_a_port_that_is_none_is_told(monkeypatch, port):
    places(monkeypatch, RANK="0", WORLD_SIZE="2", MASTER_PORT=port)
    with pytest.raises(UserError, match="at which the processes of this run were to meet, cannot"):
        check_port()
