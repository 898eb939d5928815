"""Random problems of attention: the arguments of a call, and what each batch element must give."""

import dataclasses
import math

import libraries
import numpy
import reference
import torch
from reference import Element


@dataclasses.dataclass
class Case:
    packed: bool
    layout: str
    q: object
    k: object
    v: object
    boundaries: tuple  # cu_seqlens_q, cu_seqlens_kv of a packed case
    options: dict
    batch: tuple  # its axes
    rows: list  # seq_q of each element, for the packed
    elements: list


def f64(array):
    return torch.from_numpy(numpy.array(array, dtype=numpy.float64))


class Generator:
    def __init__(self, seed, library=None):
        self.rng = numpy.random.default_rng(seed)
        self.library = library or self.choose(libraries.LIBRARIES)

    def choose(self, values):
        return values[int(self.rng.integers(0, len(values)))]

    def chance(self, p):
        return self.rng.random() < p

    def number(self, low, high):
        return int(self.rng.integers(low, high + 1))

    def normal(self, *shape):
        return self.rng.standard_normal(shape)

    def floats(self, numbers, types=libraries.FLOATS):
        """(array of the library in a random type and layout, its numbers as f64)"""
        name = self.choose(types)
        return self.array(numbers, name), libraries.rounded(numbers, name)

    def array(self, numbers, type_name):
        return libraries.make(self.library, numbers, type_name, self.rng)

    def ints(self, numbers):
        types = ("int32",) if self.library == "jax" else ("int32", "int64")  # JAX has no int64 by default
        return self.array(numbers, self.choose(types))

    def small_array(self, numbers):
        """Slopes, biases: these may also be of float64, where the library has it."""
        types = libraries.FLOATS if self.library == "jax" else (*libraries.FLOATS, "float64")
        return self.floats(numbers, types)

    def per_element(self, numbers, axes):
        """What may be one number for all, or one for each: (argument, numbers of the elements)."""
        if self.chance(0.3):
            return int(numbers[0]), [int(numbers[0])] * len(numbers)
        return self.ints(numpy.reshape(numbers, axes)), [int(n) for n in numbers]

    def pairs(self, full, make):
        """A mask or bias of this full shape with axes of extent 1, or missing: (argument, full numbers)."""
        shape = [1 if self.chance(0.3) else extent for extent in full]
        numbers = make(shape)
        argument = numbers
        while argument.ndim > 0 and argument.shape[0] == 1 and self.chance(0.5):
            argument = argument[0]
        return argument, numpy.broadcast_to(numbers, full)

    def stored(self, numbers, kinds):
        """Keys or values: (argument, scales or None, f64, type). numbers [elements, kv_heads, seq, depth]."""
        depth = numbers.shape[-1]
        kind = self.choose(kinds)
        if kind == "int4" and depth % 32 == 0:
            groups = numbers.shape[:-1] + (depth // 32,)
            scales = (self.rng.random(groups) / 4).astype(numpy.float16)
            nibbles = self.rng.integers(0, 256, (*groups, 16)).astype(numpy.uint8)
            stored = numpy.concatenate([scales[..., None].view(numpy.uint8), nibbles], -1)
            low, high = (nibbles & 15).astype(float), (nibbles >> 4).astype(float)
            values = (numpy.concatenate([low, high], -1) - 8) * scales[..., None].astype(float)
            return stored.reshape(*groups[:-1], groups[-1] * 18), None, values.reshape(numbers.shape), "uint8"
        if kind == "int8":
            values = self.rng.integers(-127, 128, numbers.shape)
            scales = (self.rng.random(numbers.shape[:-1]) / 64).astype(numpy.float32)
            return values, scales, values * scales[..., None].astype(float), "int8"
        type_name = self.choose(libraries.FLOATS)
        return numbers, None, libraries.rounded(numbers, type_name), type_name


MODES = ("dense", "dense", "dense", "paged", "packed")
STORED = ("float", "float", "float", "int8", "int4")  # how keys and values are


def case(seed, library=None, modes=MODES, stored=STORED):
    g = Generator(seed, library)
    mode = g.choose(modes)
    n = g.number(1, 4)
    kv_heads, group = g.number(1, 3), g.number(1, 3)
    heads = kv_heads * group
    d_k, d_v = (g.choose((g.number(1, 70), 32, 64)) for _ in "kv")
    batch = (n,)
    if mode == "dense":
        batch = g.choose(((n,), (n,), () if n == 1 else (n,), (2, n), (1, n, 1)))
        n = math.prod(batch)
    seq_q = [g.choose((1, g.number(0, 24)))] * n
    if mode == "packed":
        seq_q = [g.number(0, 20) for _ in range(n)]
    page = g.number(1, 12)
    if mode == "packed":
        lengths = [g.number(0, 60) for _ in range(n)]
        capacity = max(lengths)
    elif mode == "paged":
        pages = g.number(1, 8)
        capacity = pages * page
        lengths = [g.number(0, capacity) for _ in range(n)]
    else:
        capacity = g.number(0, 90)
        lengths = [capacity] * n
    options = {}
    if mode == "paged" or (mode == "dense" and g.chance(0.3)):
        options["kv_lengths"], lengths = g.per_element([g.number(0, capacity) for _ in range(n)], batch)

    # k and v as [elements, kv_heads, capacity, depth]; what no key stands for is NaN where a float can say so.
    def keys(depth):
        argument, scales, values, type_name = g.stored(g.normal(n, kv_heads, capacity, depth), stored)
        if scales is None and type_name != "uint8":
            argument = numpy.array(argument, dtype=float)
            for b in range(n):
                argument[b, :, lengths[b] :] = math.nan
        return argument, scales, values, type_name

    k, k_scales, k_values, k_type = keys(d_k)
    v, v_scales, v_values, v_type = keys(d_v)
    q_numbers = [g.normal(heads, seq_q[b], d_k) * g.choose((1.0, 1.0, 4.0)) for b in range(n)]
    q_type = g.choose(libraries.FLOATS)
    elements = [
        Element(
            f64(libraries.rounded(q_numbers[b], q_type)),
            f64(k_values[b, :, : lengths[b]]),
            f64(v_values[b, :, : lengths[b]]),
        )
        for b in range(n)
    ]

    def spread(name, values):
        for element, value in zip(elements, values, strict=True):
            setattr(element, name, value)

    def for_all(name, value):
        options[name] = value
        spread(name, [value] * n)

    if g.chance(0.4):
        for_all("causal", True)
    if g.chance(0.3):
        options["q_offset"], offsets = g.per_element([g.number(-20, 60) for _ in range(n)], batch)
        spread("q_offset", offsets)
    if g.chance(0.25):
        for_all("window", (g.number(-1, 30), g.number(-1, 10)))
    if g.chance(0.2):
        for_all("chunk", g.number(1, 20))
    if g.chance(0.2):
        for_all("prefix", g.number(0, 20))
    if g.chance(0.25):
        for_all("softcap", float(numpy.float32(g.choose((0.5, 5.0, 30.0)))))
    if g.chance(0.25):
        for_all("scale", float(numpy.float32(g.choose((0.1, 0.25, -0.3)))))
    for name in ("alibi_slopes", "sinks"):
        if g.chance(0.25):
            shape = (heads,) if mode == "packed" or g.chance(0.7) else (*batch, heads)
            options[name], values = g.small_array(g.normal(*shape) * (0.1 if name == "alibi_slopes" else 2))
            values = numpy.broadcast_to(values, (*batch, heads)).reshape(n, heads)
            spread(name, [f64(value) for value in values])

    # Along the queries, the packed have all elements one after the other.
    first = [sum(seq_q[:b]) for b in range(n)]

    def of_element(b, full):
        """[heads or 1, seq_q, seq_kv] of a full array of pairs."""
        if mode == "packed":
            return full[:, first[b] : first[b] + seq_q[b], : lengths[b]]
        return full.reshape(n, *full.shape[len(batch) :])[b, ..., : lengths[b]]

    pairs_shape = (heads, sum(seq_q), capacity) if mode == "packed" else (*batch, heads, seq_q[0], capacity)
    if g.chance(0.3):
        density = g.choose((0.2, 0.8))
        argument, full = g.pairs(pairs_shape, lambda shape: g.rng.random(shape) < density)
        options["mask"] = g.array(argument, "bool")
        spread("mask", [torch.from_numpy(numpy.array(of_element(b, full))) for b in range(n)])
    if g.chance(0.3):

        def bias(shape):
            return numpy.where(g.rng.random(shape) < 0.1, -math.inf, g.normal(*shape))

        argument, full = g.pairs(pairs_shape, bias)
        types = libraries.FLOATS if g.library == "jax" else (*libraries.FLOATS, "float64")
        type_name = g.choose(types)
        options["bias"] = g.array(argument, type_name)
        spread("bias", [f64(libraries.rounded(numpy.array(of_element(b, full)), type_name)) for b in range(n)])
    if g.chance(0.15):
        documents = [g.rng.integers(0, 3, s) for s in seq_q], [g.rng.integers(0, 3, s) for s in lengths]
        if mode == "packed":
            options["q_segments"], options["kv_segments"] = (g.ints(numpy.concatenate(d)) for d in documents)
        else:
            full = numpy.full((n, capacity), 7)
            for b in range(n):
                full[b, : lengths[b]] = documents[1][b]
            options["q_segments"] = g.ints(numpy.reshape(documents[0], (*batch, seq_q[0])))
            options["kv_segments"] = g.ints(full.reshape(*batch, capacity))
        spread("q_segments", [torch.from_numpy(d) for d in documents[0]])
        spread("kv_segments", [torch.from_numpy(d) for d in documents[1]])
    if g.chance(0.15):
        drafts = g.choose((g.number(1, 9), 70))
        trees = [g.rng.random((s, drafts)) < 0.6 for s in seq_q]
        argument = numpy.concatenate(trees) if mode == "packed" else numpy.reshape(trees, (*batch, seq_q[0], drafts))
        options["tree"] = g.array(argument, "bool")
        spread("tree", [torch.from_numpy(tree) for tree in trees])

    if g.chance(0.15):
        p, seed = float(numpy.float32(0.9 * g.rng.random())), int(g.rng.integers(2**64, dtype=numpy.uint64))
        dropout = {"dropout_p": p, "dropout_seed": seed, "dropout_offset": g.number(0, 2**32 - 1)}
        if g.library == "jax":  # traces no int of more bits
            dropout = {name: value if name == "dropout_p" else value % 2**31 for name, value in dropout.items()}
        options |= dropout
        spread("kept", [reference.kept(b, heads, seq_q[b], lengths[b], *dropout.values()) for b in range(n)])

    layout = g.choose(("bhsd", "bshd"))

    def laid_out(numbers, type_name):
        if layout == "bshd":
            numbers = numpy.swapaxes(numbers, -2, -3)
        if type_name == "uint8" and g.library != "jax":  # the bytes of a group are adjacent
            return libraries.make(g.library, numbers, type_name)
        return g.array(numbers, type_name)

    def dense_or_packed(parts):
        return numpy.concatenate(parts, -2) if mode == "packed" else numpy.reshape(parts, (*batch, *parts[0].shape))

    table = None
    if mode == "paged":
        pool = n * pages + g.number(0, 3)
        table = g.rng.permutation(pool)[: n * pages].reshape(n, pages)
        options["block_table"] = g.ints(table)

    def cache(array, type_name):
        if mode == "packed":
            return laid_out(numpy.concatenate([array[b][:, : lengths[b]] for b in range(n)], 1), type_name)
        if mode == "dense":
            return laid_out(array.reshape(*batch, *array.shape[1:]), type_name)
        return laid_out(in_pages(array), type_name)

    def in_pages(array):
        """[elements, kv_heads, pages * page, ...] as a pool [pages, kv_heads, page, ...]."""
        result = numpy.zeros((pool, kv_heads, page, *array.shape[3:]), array.dtype)
        for b in range(n):
            for number in range(pages):
                result[table[b, number]] = array[b, :, number * page : (number + 1) * page]
        return result

    for name, scales in (("k_scales", k_scales), ("v_scales", v_scales)):
        if scales is None:
            continue
        if mode == "packed":
            scales = numpy.concatenate([scales[b][:, : lengths[b]] for b in range(n)], 1)
        elif mode == "paged":
            scales = in_pages(scales)
        else:
            scales = scales.reshape(*batch, kv_heads, capacity)
        options[name] = g.array(scales, "float32")

    q = laid_out(dense_or_packed(q_numbers), q_type)
    boundaries = ()
    if mode == "packed":
        boundaries = tuple(
            libraries.make(g.library, numpy.cumsum([0, *sizes]), "int32") for sizes in (seq_q, lengths)
        )
    if g.chance(0.5):
        options["return_lse"] = True
    if g.chance(0.2) and g.library != "jax":
        shape = (*dense_or_packed(q_numbers).shape[:-1], d_v)
        options["out"] = laid_out(numpy.full(shape, math.nan), g.choose(libraries.FLOATS))
    if q_type == k_type == v_type == "bfloat16":  # out, too, unless it is given
        options["round_weights"] = g.choose((None, False, True))
        spread("rounded", [options["round_weights"] is not False] * n)
    if g.chance(0.3):
        options["threads"] = g.number(1, 3)
    if mode == "packed" or layout != "bhsd":
        options["layout"] = layout
    return Case(
        mode == "packed", layout, q, cache(k, k_type), cache(v, v_type), boundaries, options, batch, seq_q, elements
    )
