"""OpenVINO: ScaledDotProductAttention, compiled for the shape, in f32."""

from __future__ import annotations

import numpy as np
import openvino as ov
from openvino import opset13 as op
from peer import Operands, Peer, Variant

from shapes import Shape


class OpenVino(Peer):
    def __init__(self, threads: int) -> None:
        self.core = ov.Core()
        self.version = ov.__version__.split("-")[0]
        self.config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",  # not bf16, which it takes by itself where the CPU has it
            "KV_CACHE_PRECISION": "f32",
        }

    def variants(self, shape: Shape, operands: Operands) -> list[Variant]:
        if not shape.is_attention or shape.attention.heads != shape.attention.kv_heads:
            return []  # SDPA knows no groups
        arrays = [operands["q"], *operands["kv"]]
        inputs = [op.parameter(x.shape, np.float32) for x in arrays]
        sdpa = op.scaled_dot_product_attention(*inputs, causal=shape.attention.causal)
        compiled = self.core.compile_model(ov.Model([sdpa], inputs), "CPU", self.config)
        request = compiled.create_infer_request()
        for i, x in enumerate(arrays):
            request.set_input_tensor(i, ov.Tensor(x, shared_memory=True))
        return [Variant("SDPA", request.infer, lambda: request.get_output_tensor(0).data.copy())]
