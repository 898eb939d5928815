"""PyTorch: scaled_dot_product_attention, its gradients, mm, and the layer made of them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from peer import STORED, Operands, Peer, Variant

from shapes import Shape


SOFTCAP = 30.0  # AttentionLayout's


class Torch(Peer):
    trains = True

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.version = torch.__version__

    def variants(self, shape: Shape, operands: Operands) -> list[Variant]:
        x = {name: _tensor(array) for name, array in operands.items()}
        if shape.operation == "gemm":  # c is in the type of a and b
            c = torch.empty(x["a"].shape[0], x["b"].shape[1], dtype=x["a"].dtype)
            return [Variant("mm", lambda: torch.mm(x["a"], x["b"], out=c), lambda: c.float().numpy())]
        if shape.operation == "layer":
            return [self._layer(x)]
        return self._gradients(shape, x) if shape.has_gradients else self._attention(shape, x)

    def _gradients(self, shape: Shape, x: dict[str, torch.Tensor]) -> list[Variant]:
        """By autograd. What scaled_dot_product_attention has no option for is a mask or a bias of it, and the formula."""
        inputs = [tensor.clone().requires_grad_() for tensor in (x["q"], *x["kv"])]
        q, k, v = inputs
        heads, seq, depth = q.shape[1:]
        causal = shape.attention.causal
        distance = torch.arange(seq) - torch.arange(seq)[:, None]  # j - i
        attended = distance <= 0 if causal else torch.ones(seq, seq, dtype=torch.bool)
        if window := shape.modifiers.get("window"):
            attended &= distance > -int(window.removeprefix("window"))
        bias = None
        if "alibi" in shape.modifiers:
            slopes = 2.0 ** (-1 - torch.arange(heads) % 8)
            bias = (slopes[:, None, None] * distance).masked_fill(~attended, -torch.inf).to(q.dtype)[None]

        def plain() -> torch.Tensor:
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

        def masked() -> torch.Tensor:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=attended if bias is None else bias)

        def formula() -> torch.Tensor:
            scores = q @ k.mT * depth**-0.5
            if "softcap" in shape.modifiers:
                scores = SOFTCAP * torch.tanh(scores / SOFTCAP)
            if bias is not None:
                scores = scores + bias
            elif causal or window:
                scores = scores.masked_fill(~attended, -torch.inf)
            return torch.softmax(scores, -1) @ v

        if "softcap" in shape.modifiers:
            ways = [("formula", formula)]
        elif window or bias is not None:
            ways = [("sdpa with a mask" if bias is None else "sdpa with a bias", masked), ("formula", formula)]
        else:
            ways = [("sdpa", plain)]
        return [self._differentiated(shape, name, way, inputs, x["dout"]) for name, way in ways]

    def _differentiated(self, shape: Shape, name: str, way, inputs: list[torch.Tensor], dout: torch.Tensor) -> Variant:
        trains = shape.modifiers["pass"] == "training"
        with torch.enable_grad():
            out = way()
        found: list[torch.Tensor] = []

        def run() -> None:
            nonlocal out, found
            if trains:
                with torch.enable_grad():
                    out = way()
            found = [out, *torch.autograd.grad(out, inputs, dout, retain_graph=not trains)]

        return Variant(name, run, lambda: np.stack([_array(tensor.detach().contiguous()) for tensor in found]))

    def _attention(self, shape: Shape, x: dict[str, torch.Tensor]) -> list[Variant]:
        q, (k, v) = x["q"], x["kv"]
        causal = shape.attention.causal
        grouped = q.shape[1] != k.shape[1]
        out = torch.empty(0)

        def sdpa() -> None:
            nonlocal out
            out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)

        found = [Variant("sdpa", sdpa, lambda: _array(out))]
        if grouped and q.shape[2] == 1:
            # The query heads of a key head as rows of one head: K and V are then read once, not once a head.
            rows = q.view(k.shape[0], k.shape[1], -1, q.shape[3])

            def packed() -> None:
                nonlocal out
                out = F.scaled_dot_product_attention(rows, k, v)

            # The same as two products with the scores between them: the way to the CPU's own bf16 instructions.
            each_rows, each_k, each_v = rows.flatten(0, 1), k.flatten(0, 1).mT, v.flatten(0, 1)
            no_bias, scale = rows.new_empty(1), q.shape[3] ** -0.5

            def products() -> None:
                nonlocal out
                scores = torch.baddbmm(no_bias, each_rows, each_k, beta=0, alpha=scale)
                out = torch.bmm(torch.softmax(scores, -1), each_v)

            def unpacked() -> np.ndarray:
                return _array(out.reshape(q.shape))

            found.append(Variant("sdpa with the group packed", packed, unpacked))
            found.append(Variant("products with the group packed", products, unpacked))
        return found

    def _layer(self, x: dict[str, torch.Tensor]) -> Variant:
        tokens = x["tokens"]
        heads, embedding, depth = x["w_q"].shape

        def columns(name: str) -> torch.Tensor:  # [heads, embedding, depth] -> [heads * depth, embedding]
            return x[name].float().permute(0, 2, 1).reshape(heads * depth, embedding)

        w_qkv = torch.cat([columns("w_q"), columns("w_k"), columns("w_v")]).contiguous()
        w_o = x["w_o"].float().reshape(heads * depth, embedding).t().contiguous()
        batch, seq, _ = tokens.shape
        out = torch.empty(0)

        def layer() -> None:
            nonlocal out
            qkv = F.linear(tokens, w_qkv).view(batch, seq, 3, heads, depth).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
            out = F.linear(mixed.transpose(1, 2).reshape(batch, seq, heads * depth), w_o)

        return Variant("linear, sdpa, linear", layer, lambda: out.numpy())


def _tensor(array: np.ndarray) -> torch.Tensor:
    """Of bf16 the array holds the bits."""
    if array.dtype == STORED["bf16"]:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _array(tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(STORED["bf16"])
    return tensor.numpy()
