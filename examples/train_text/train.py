"""Trains a small transformer on the text of free licences twice, turn by turn: with rapt's attention, and with
PyTorch's own. Both begin with the same weights and see the same text.

    python train.py [--steps 200] [--text FILE...] [--picture PICTURE.png]

A causal decoder as of today: grouped heads, softcap, and a window in every other layer, as Gemma 2 has them.
"""

import argparse
import dataclasses
import math
import pathlib
import time

import rapt.torch
import torch
import torch.nn.functional as F
from torch import nn

LICENCES = pathlib.Path("/usr/share/common-licenses")  # of every Debian


@dataclasses.dataclass
class Config:
    layers: int = 4
    d_model: int = 256
    heads: int = 8
    kv_heads: int = 2
    seq: int = 512
    batch: int = 4
    window: int = 128  # keys before the query, in layers 0, 2, ...
    softcap: float = 30.0  # 0: none
    steps: int = 200
    learning_rate: float = 1e-3
    seed: int = 1


def attention_of_rapt(q, k, v, window, softcap):
    """q [batch, heads, seq, d], k and v [batch, kv_heads, seq, d]; window -1: all keys before the query."""
    return rapt.torch.attention(q, k, v, is_causal=True, enable_gqa=True, softcap=softcap, window=(window, -1))


def attention_of_pytorch(q, k, v, window, softcap):
    """The same: scaled_dot_product_attention where it can, which knows no softcap."""
    x, j = torch.arange(q.shape[2])[:, None], torch.arange(k.shape[2])
    mask = (j <= x) if window < 0 else (j <= x) & (j >= x - window)
    if softcap == 0:
        return F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    s = q @ k.mT / math.sqrt(q.shape[-1])
    s = softcap * torch.tanh(s / softcap)
    return s.masked_fill(~mask, -math.inf).softmax(-1) @ v


class Layer(nn.Module):
    def __init__(self, c: Config, number, attention):
        super().__init__()
        self.c, self.attention = c, attention
        self.window = c.window if number % 2 == 0 else -1
        depth = c.d_model // c.heads
        self.norm_1, self.norm_2 = nn.RMSNorm(c.d_model), nn.RMSNorm(c.d_model)
        self.qkv = nn.Linear(c.d_model, (c.heads + 2 * c.kv_heads) * depth, bias=False)
        self.project = nn.Linear(c.d_model, c.d_model, bias=False)
        wide = 4 * c.d_model
        self.mlp = nn.Sequential(nn.Linear(c.d_model, wide), nn.GELU(), nn.Linear(wide, c.d_model))

    def forward(self, x):
        c = self.c
        heads = self.qkv(self.norm_1(x)).unflatten(-1, (c.heads + 2 * c.kv_heads, -1)).transpose(1, 2)
        q, k, v = heads.split([c.heads, c.kv_heads, c.kv_heads], 1)
        out = self.attention(q, k, v, self.window, c.softcap)
        x = x + self.project(out.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm_2(x))


class Decoder(nn.Module):
    def __init__(self, c: Config, attention):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(256, c.d_model), nn.Embedding(c.seq, c.d_model)
        self.layers = nn.ModuleList(Layer(c, number, attention) for number in range(c.layers))
        self.norm = nn.RMSNorm(c.d_model)
        self.head = nn.Linear(c.d_model, 256, bias=False)

    def forward(self, tokens):
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class Run:
    """One model while it learns."""

    def __init__(self, name, c: Config, attention):
        torch.manual_seed(c.seed)  # the same weights in every run
        self.name, self.c, self.losses, self.seconds = name, c, [], 0.0
        self.model = Decoder(c, attention)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=c.learning_rate, weight_decay=0.1)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(  # warmed up, then along a cosine
            self.optimizer, lambda step: min((step + 1) / 20, 0.55 + 0.45 * math.cos(math.pi * step / c.steps))
        )

    def loss(self, tokens):
        return F.cross_entropy(self.model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    def step(self, tokens):
        started = time.perf_counter()
        loss = self.loss(tokens)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.losses.append(loss.item())
        self.seconds += time.perf_counter() - started

    def held_out(self, text):
        """The loss on text that was not learnt from."""
        with torch.no_grad():
            pieces = text[: len(text) // (self.c.seq + 1) * (self.c.seq + 1)].reshape(-1, self.c.seq + 1)
            losses = [self.loss(piece) for piece in pieces.split(self.c.batch)]
        return torch.stack(losses).mean().item()

    @property
    def tokens_per_second(self):
        return len(self.losses) * self.c.batch * self.c.seq / self.seconds


def train(c: Config, text, say=lambda *_: None):
    """text: uint8. Returns the two runs, and the held-out text."""
    text = text.long()
    learnt, held_out = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
    runs = [Run("rapt", c, attention_of_rapt), Run("PyTorch", c, attention_of_pytorch)]
    generator = torch.Generator().manual_seed(c.seed)
    for step in range(c.steps):
        starts = torch.randint(len(learnt) - c.seq, (c.batch,), generator=generator)
        tokens = learnt[starts[:, None] + torch.arange(c.seq + 1)]
        for run in runs if step % 2 == 0 else reversed(runs):  # neither is always the first
            run.step(tokens)
        say(step + 1, runs)
    return runs, held_out


def draw(runs, picture):
    import matplotlib

    matplotlib.use("Agg")  # no display needed
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for run, style in zip(runs, ("-", "--"), strict=True):
        axes.plot(run.losses, style, label=f"{run.name}, {run.tokens_per_second:.0f} tokens a second")
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats per byte")
    axes.legend()
    figure.savefig(picture, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=pathlib.Path, nargs="+", help="files to learn from (default: licences)")
    parser.add_argument("--picture", type=pathlib.Path, help="where to draw the loss")
    for field in dataclasses.fields(Config):
        parser.add_argument("--" + field.name.replace("_", "-"), type=type(field.default), default=field.default)
    arguments = vars(parser.parse_args())
    files, picture = arguments.pop("text"), arguments.pop("picture")
    c = Config(**arguments)
    if files is None:
        files = sorted(path for path in LICENCES.glob("*") if not path.is_symlink())
    text = torch.frombuffer(bytearray(b"".join(path.read_bytes() for path in files)), dtype=torch.uint8)
    if len(text) < 20 * c.seq:
        parser.error(f"{len(text)} bytes of text are too few: name files with --text")

    def say(step, runs):
        if step % max(c.steps // 10, 1) == 0:
            words = [f"{run.name} loss {run.losses[-1]:.4f}, {run.tokens_per_second:6.0f} tokens/s" for run in runs]
            print(f"step {step:5} of {c.steps}: {'; '.join(words)}", flush=True)

    size = sum(parameter.numel() for parameter in Decoder(c, None).parameters())
    print(f"{size / 1e6:.1f} million parameters, {len(text)} bytes of text, {torch.get_num_threads()} threads")
    runs, held_out = train(c, text, say)
    if picture:
        draw(runs, picture)
        print(f"loss curves: {picture}")

    ours, theirs = runs
    last = min(20, c.steps)
    differences = [abs(a / b - 1) for a, b in zip(ours.losses, theirs.losses, strict=True)]
    ends = [(f"mean loss of the last {last} steps", [sum(run.losses[-last:]) / last for run in runs])]
    ends.append(("loss on held-out text", [run.held_out(held_out) for run in runs]))
    for what, (a, b) in ends:
        print(f"{what}: rapt {a:.4f}, PyTorch {b:.4f}, {100 * abs(a / b - 1):.3f} % apart")
    print(f"largest difference at one step: {100 * max(differences):.3f} %")
    speeds = ours.tokens_per_second, theirs.tokens_per_second
    print(f"tokens per second: rapt {speeds[0]:.0f}, PyTorch {speeds[1]:.0f}, {speeds[0] / speeds[1]:.2f} x")
    if any(abs(a / b - 1) > 0.01 for _, (a, b) in ends):
        raise SystemExit("the losses are more than 1 % apart")


if __name__ == "__main__":
    main()
