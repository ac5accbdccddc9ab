"""How a batch lies over the ranks of a process group, and what the losses ask of torch.distributed.

Nothing else in the package speaks to other ranks. Ranks hold ``n_r`` rows each, equal or not, none
included; the global batch of N rows is their concatenation in the order of the group's ranks.
``peers`` finds the group of a loss, ``agreement`` is the handshake that a call begins with,
``shards`` holds the collectives.
"""

from fastclip.comm.agreement import Agreement as Agreement
from fastclip.comm.peers import Peers as Peers
from fastclip.comm.peers import peers_of_function as peers_of_function
from fastclip.comm.peers import peers_of_module as peers_of_module
from fastclip.comm.shards import IMAGE as IMAGE
from fastclip.comm.shards import SCALE as SCALE
from fastclip.comm.shards import TEXT as TEXT
from fastclip.comm.shards import TRAVEL as TRAVEL
from fastclip.comm.shards import AllGather as AllGather
from fastclip.comm.shards import Shards as Shards
