"""Find out which neuron interactions and normalizations help predict a recorded population."""

import os

# torch asks for large pages, which Linux hands out 3 to 4 times as fast for tensors of tens of MB; read once, by torch
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
