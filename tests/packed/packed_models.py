"""Modules to pack."""

from torch import nn


class Holder(nn.Module):
    """A module that holds these tensors as buffers."""

    def __init__(self, **tensors):
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)
