"""ONNX Runtime: the standard Attention operator (opset 23), and the contributed MultiHeadAttention and
GroupQueryAttention of com.microsoft."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from onnx import helper
from peer import Operands, Peer, Variant

from shapes import Attention, Shape


class OnnxRuntime(Peer):
    def __init__(self, threads: int) -> None:
        ort.set_default_logger_severity(4)
        self.threads = threads
        self.version = ort.__version__

    def variants(self, shape: Shape, operands: Operands) -> list[Variant]:
        if not shape.is_attention or shape.storage == "bf16":  # its CPU kernels take none
            return []
        a = shape.attention
        q, (k, v) = operands["q"], operands["kv"]
        makers = [self._attention]
        if a.heads == a.kv_heads:
            makers.append(self._multi_head_attention)
        if a.seq_q == 1:
            makers.append(self._group_query_attention)
        found, refusals = [], []
        for make in makers:
            try:
                variant = make(a, q, k, v)
                variant.run()
                found.append(variant)
            except Exception as error:  # an operator that this version refuses is no variant
                refusals.append(f"{make.__name__}: {error}")
        if not found:
            raise RuntimeError("; ".join(refusals))
        return found

    def _session(self, node, inputs: dict[str, np.ndarray], outputs: list[str]) -> ort.InferenceSession:
        def info(name: str, like: np.ndarray, extents: tuple[int, ...] | None):
            return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(like.dtype), extents)

        graph = helper.make_graph(
            [node],
            "attention",
            [info(n, x, x.shape) for n, x in inputs.items()],
            [info(n, inputs["q"], None) for n in outputs],
        )
        opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])

    def _variant(self, name: str, node, inputs, bound_outputs, out: np.ndarray, to_heads_first) -> Variant:
        """Everything bound once: a run copies nothing. Outputs are arrays, or the input that they update."""
        session = self._session(node, inputs, list(bound_outputs))
        values = {n: ort.OrtValue.ortvalue_from_numpy(x) for n, x in inputs.items()}
        binding = session.io_binding()
        for n, value in values.items():
            binding.bind_ortvalue_input(n, value)
        results = {}
        for n, source in bound_outputs.items():
            value = values[source] if isinstance(source, str) else ort.OrtValue.ortvalue_from_numpy(source)
            results[n] = value
            binding.bind_ortvalue_output(n, value)

        def result() -> np.ndarray:
            return np.ascontiguousarray(to_heads_first(results["out"].numpy()).reshape(out.shape))

        return Variant(name, lambda: session.run_with_iobinding(binding), result)

    def _attention(self, a: Attention, q, k, v) -> Variant:
        node = helper.make_node("Attention", ["q", "k", "v"], ["out"], is_causal=int(a.causal))
        return self._variant("Attention", node, {"q": q, "k": k, "v": v}, {"out": np.empty_like(q)}, q, lambda out: out)

    def _multi_head_attention(self, a: Attention, q, k, v) -> Variant:
        """[batch, seq, heads * depth], the layout of this operator."""
        node = helper.make_node(
            "MultiHeadAttention",
            ["q", "k", "v"],
            ["out"],
            domain="com.microsoft",
            num_heads=a.heads,
            unidirectional=int(a.causal),
        )
        inputs = {"q": _tokens_first(q), "k": _tokens_first(k), "v": _tokens_first(v)}
        return self._variant(
            "MultiHeadAttention",
            node,
            inputs,
            {"out": np.empty_like(inputs["q"])},
            q,
            lambda out: out.reshape(a.batch, a.seq_q, a.heads, a.depth).transpose(0, 2, 1, 3),
        )

    def _group_query_attention(self, a: Attention, q, k, v) -> Variant:
        """One step of generation: seq - 1 keys in a cache that the step extends in place by one."""
        node = helper.make_node(
            "GroupQueryAttention",
            ["q", "k", "v", "past_k", "past_v", "last", "total"],
            ["out", "present_k", "present_v"],
            domain="com.microsoft",
            num_heads=a.heads,
            kv_num_heads=a.kv_heads,
        )
        inputs = {
            "q": _tokens_first(q),
            "k": _tokens_first(k[:, :, -1:]),
            "v": _tokens_first(v[:, :, -1:]),
            "past_k": k,
            "past_v": v,
            "last": np.full(a.batch, a.seq_kv - 1, np.int32),
            "total": np.array([a.seq_kv], np.int32),
        }
        bound = {"out": np.empty_like(inputs["q"]), "present_k": "past_k", "present_v": "past_v"}
        return self._variant("GroupQueryAttention", node, inputs, bound, q, lambda out: out)


def _tokens_first(x: np.ndarray) -> np.ndarray:
    """[batch, heads, seq, depth] -> [batch, seq, heads * depth]"""
    batch, heads, seq, depth = x.shape
    return np.ascontiguousarray(x.transpose(0, 2, 1, 3)).reshape(batch, seq, heads * depth)
