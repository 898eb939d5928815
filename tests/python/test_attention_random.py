"""Random problems of attention with every argument, against PyTorch's f64."""

import os
import re

import libraries
import pytest
import rapt
import reference
import torch
from random_cases import case

N_CASES = int(os.environ.get("RAPT_TEST_CASES", 1500))


@pytest.mark.parametrize("seed", range(N_CASES))
def test_attention(seed):
    c = case(seed)
    function = rapt.attention_varlen if c.packed else rapt.attention
    result = function(c.q, c.k, c.v, *c.boundaries, **c.options)
    out, lse = result if "return_lse" in c.options else (result, None)

    if "out" in c.options:
        assert out is c.options["out"]
    else:
        assert libraries.type_name(out) == libraries.type_name(c.q)
    assert libraries.library_of(out) == libraries.library_of(c.q)
    type_name = libraries.type_name(out)
    out = libraries.to_torch(out)
    if c.layout == "bshd":
        out = out.transpose(-2, -3)

    expected = [reference.attention(element) for element in c.elements]
    if c.packed:
        outs = out.split(c.rows, -2)
    else:
        outs = out.reshape(len(expected), *out.shape[len(c.batch) :])
    for got, want in zip(outs, expected, strict=True):
        reference.assert_within(got, want.out, want.out_bound, type_name)
    if lse is None:
        return
    assert libraries.library_of(lse) == libraries.library_of(c.q) and libraries.type_name(lse) == "float32"
    lse = libraries.to_torch(lse)
    lses = lse.split(c.rows, -1) if c.packed else lse.reshape(len(expected), *lse.shape[len(c.batch) :])
    for got, want in zip(lses, expected, strict=True):
        reference.assert_within(got, want.lse, want.lse_bound)


def arguments_of(function):
    """The names of what comes after the star of a signature."""
    signature = function.__nb_signature__[0][0]
    return set(re.findall(r"(\w+): ", signature.partition("*, ")[2]))


def test_the_cases_have_every_argument():
    seen = set()
    for seed in range(300):
        seen |= set(case(seed).options)
    assert seen == arguments_of(rapt.attention)


def test_threads_do_not_change_a_bit():
    for seed in range(40):
        c = case(seed)
        c.options.pop("threads", None)
        c.options.pop("return_lse", None)
        c.options.pop("out", None)
        function = rapt.attention_varlen if c.packed else rapt.attention
        one, two, all_threads = (
            libraries.to_torch(function(c.q, c.k, c.v, *c.boundaries, **c.options, threads=threads))
            for threads in (1, 2, None)
        )
        assert torch.equal(one, two) and torch.equal(one, all_threads)
