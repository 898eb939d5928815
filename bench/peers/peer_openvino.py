"""OpenVINO: ScaledDotProductAttention, compiled for the shape, in the storage type of it."""

from __future__ import annotations

import numpy as np
import openvino as ov
from openvino import opset13 as op
from peer import STORED, Operands, Peer, Variant

from shapes import Shape


class OpenVino(Peer):
    def __init__(self, threads: int) -> None:
        self.core = ov.Core()
        self.version = ov.__version__.split("-")[0]
        self.threads = threads

    def variants(self, shape: Shape, operands: Operands) -> list[Variant]:
        if not shape.is_attention or shape.attention.heads != shape.attention.kv_heads:
            return []  # SDPA knows no groups
        arrays = [operands["q"], *operands["kv"]]
        kind = getattr(ov.Type, shape.storage)
        inputs = [op.parameter(x.shape, kind) for x in arrays]
        sdpa = op.scaled_dot_product_attention(*inputs, causal=shape.attention.causal)
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": shape.storage,  # by itself it takes bf16 for f32 where the CPU has it
            "KV_CACHE_PRECISION": shape.storage,
        }
        compiled = self.core.compile_model(ov.Model([sdpa], inputs), "CPU", config)
        request = compiled.create_infer_request()
        for i, x in enumerate(arrays):
            request.set_input_tensor(i, ov.Tensor(x, x.shape, kind))

        def result() -> np.ndarray:
            return request.get_output_tensor(0).data.view(STORED[shape.storage]).copy()

        return [Variant("SDPA", request.infer, result)]
