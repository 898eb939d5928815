"""examples/train_text with few steps: with rapt the same is learnt as with PyTorch's own attention."""

import importlib.util
import pathlib
import sys

import pytest
import torch

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("train_text", ROOT / "examples/train_text/train.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_text"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("softcap", [5.0, 0.0])
def test_both_learn_the_same(example, softcap):
    sizes = {"layers": 2, "d_model": 32, "heads": 4, "kv_heads": 2, "seq": 48, "batch": 3, "window": 9}
    c = example.Config(**sizes, steps=30, softcap=softcap, learning_rate=1e-2)
    text = torch.frombuffer(bytearray((ROOT / "LICENSE").read_bytes()), dtype=torch.uint8)
    (ours, theirs), held_out = example.train(c, text)
    assert ours.losses[-1] < ours.losses[0] - 1
    for one, other in zip(ours.losses, theirs.losses, strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    assert ours.held_out(held_out) == pytest.approx(theirs.held_out(held_out), rel=1e-3)
