"""How a batch lies over the ranks of a process group, and what the losses ask of torch.distributed.

Nothing else in the package speaks to other ranks. Ranks hold ``n_r`` rows each, equal or not, none
included; the global batch of N rows is their concatenation in the order of the group's ranks.
``peers`` finds the group of a loss, ``handshake`` is what a call begins with, ``rank_rows`` holds
the collectives.
"""

from fastclip.comm.handshake import Handshake as Handshake
from fastclip.comm.peers import Peers as Peers
from fastclip.comm.peers import peers_of_function as peers_of_function
from fastclip.comm.peers import peers_of_module as peers_of_module
from fastclip.comm.rank_rows import EXTRA as EXTRA
from fastclip.comm.rank_rows import IMAGE as IMAGE
from fastclip.comm.rank_rows import SCALE as SCALE
from fastclip.comm.rank_rows import TEXT as TEXT
from fastclip.comm.rank_rows import TRAVEL as TRAVEL
from fastclip.comm.rank_rows import AllGather as AllGather
from fastclip.comm.rank_rows import Shards as Shards
