"""Draws the salience map of one head: rows are the tokens that look, columns the tokens that they look at.

    python draw_salience.py SALIENCE.tsv TOKENIZER.json PICTURE.png
"""
import sys

import matplotlib

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

if len(sys.argv) != 4:
    sys.exit(__doc__)
source, tokenizer_file, picture = sys.argv[1:]

tokenizer = Tokenizer.from_file(tokenizer_file)
with open(source, encoding="utf-8") as lines:
    title = next(lines).removeprefix("# ").strip()
    rows = [line.split("\t") for line in lines]
tokens = [tokenizer.id_to_token(int(row[0])) for row in rows]  # query i and key i are the same token
salience = [[float(weight) for weight in row[1:]] for row in rows]

size = max(4.0, 0.32 * len(tokens) + 1.5)  # inches
figure, axes = plt.subplots(figsize=(size, size), layout="constrained")
image = axes.imshow(salience, cmap="viridis", vmin=0, vmax=1)
axes.set_xticks(range(len(tokens)), tokens, rotation=90)
axes.set_yticks(range(len(tokens)), tokens)
axes.set_xlabel("key: the token that is looked at")
axes.set_ylabel("query: the token that looks")
axes.set_title(title)
figure.colorbar(image, ax=axes, label="weight (each row sums to 1)", shrink=0.8)
figure.savefig(picture, dpi=150)
print(f"salience map: {picture}")
