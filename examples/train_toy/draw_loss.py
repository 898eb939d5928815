"""Draws the loss of each step of training.

    python draw_loss.py LOSS.csv PICTURE.png
"""
import csv
import sys

import matplotlib

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt  # noqa: E402

if len(sys.argv) != 3:
    sys.exit(__doc__)
source, picture = sys.argv[1:]

with open(source, encoding="utf-8", newline="") as lines:
    rows = list(csv.DictReader(lines))
steps = [int(row["step"]) for row in rows]
losses = [float(row["loss"]) for row in rows]

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
axes.plot(steps, losses, color="#0072B2", linewidth=1)
axes.set(xlabel="step", ylabel="mean squared error", yscale="log", title="The mean of all tokens so far, learned by one layer")
axes.grid(color="#DDDDDD", linewidth=0.6)
axes.annotate(f"{losses[-1]:.2g}", (steps[-1], losses[-1]), xytext=(4, 0), textcoords="offset points", va="center")
for side in ("top", "right"):
    axes.spines[side].set_visible(False)
figure.savefig(picture, dpi=150)
print(f"loss of each step: {source}, {picture}")
