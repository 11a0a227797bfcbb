"""What runs on one thread, and what keeps as many as there are."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from demiglace.graph.threads import GroupsOnOneThread


class Threads(TorchDispatchMode):
    """Notes on how many threads each convolution runs."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            self.seen.append(torch.get_num_threads())
        return func(*args, **(kwargs or {}))


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("groups", "dtype", "threads"), [(4, torch.float64, 1), (1, torch.float64, 2), (4, torch.float32, 2)]
)
def test_only_double_precision_in_groups_runs_on_one_thread(two_threads, groups, dtype, threads):
    layer = torch.nn.Conv2d(4, 4, 3, groups=groups, dtype=dtype)
    x = torch.randn(1, 4, 6, 6, dtype=dtype)
    with torch.no_grad():
        with Threads() as noted, GroupsOnOneThread():
            found = layer(x)
        assert torch.equal(found, layer(x))
    assert noted.seen == [threads]
    assert torch.get_num_threads() == 2


def test_channels_last_are_convolved_as_contiguous_ones():
    class Contiguous(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.convolution.default:
                assert args[0].is_contiguous()
            return func(*args, **(kwargs or {}))

    layer = torch.nn.Conv2d(4, 4, 3, groups=4, dtype=torch.float64)
    x = torch.randn(2, 6, 6, 4, dtype=torch.float64).permute(0, 3, 1, 2)
    with torch.no_grad():
        with Contiguous(), GroupsOnOneThread():
            found = layer(x)
        torch.testing.assert_close(found, layer(x))
