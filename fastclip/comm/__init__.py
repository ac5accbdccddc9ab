"""How a batch lies over the ranks of a process group, and what the losses ask of torch.distributed.

Nothing else in the package speaks to other ranks. Ranks hold ``n_r`` rows each, equal or not, none
included; the global batch of ``N`` is their concatenation in the order of the group's ranks.
``groups`` finds the group of a loss, ``agreement`` is the handshake before the first large
collective, ``shards`` the collectives themselves.
"""

from fastclip.comm.agreement import Agreement as Agreement
from fastclip.comm.agreement import agreement_for as agreement_for
from fastclip.comm.groups import find_group as find_group
from fastclip.comm.shards import IMAGE as IMAGE
from fastclip.comm.shards import SCALE as SCALE
from fastclip.comm.shards import TEXT as TEXT
from fastclip.comm.shards import TRAVEL as TRAVEL
from fastclip.comm.shards import Shards as Shards
