"""Digests of many tensors, on threads beside other work."""

import time

import pytest
import torch

from demiglace.artifact import tensor_file


def test_each_tensor_gets_its_own_digest():
    tensors = {str(number): torch.full((number,), float(number)) for number in range(20)}
    with tensor_file.hashing(tensors) as hashes:
        found = hashes()
    assert found == {name: tensor_file.sha256_of(one) for name, one in tensors.items()}


def test_a_block_that_is_interrupted_does_not_wait_for_all_of_them(monkeypatch):
    hashed = []

    def slow(tensor):
        time.sleep(0.05)
        hashed.append(tensor)

    monkeypatch.setattr(tensor_file, "sha256_of", slow)
    tensors = {str(number): torch.zeros(1) for number in range(200)}
    with pytest.raises(KeyboardInterrupt), tensor_file.hashing(tensors):
        raise KeyboardInterrupt
    assert len(hashed) < 100
