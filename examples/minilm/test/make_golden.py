"""The golden data of encoder_test.cpp: embeddings by PyTorch and Hugging Face transformers, in float64.

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install torch==2.13.0 transformers==4.57.1 numpy
    /tmp/golden/bin/python examples/minilm/test/make_golden.py MODEL_DIRECTORY

MODEL_DIRECTORY is what examples/minilm/get-model prints. Writes beside this file:
    golden.tsv           sentences, token ids, attention masks (the format of ../write_tokens.py)
    golden.safetensors   embeddings [sentence, hidden] F32, rows of length 1
                         salience [heads, seq, seq] F32: the last layer's, of the sentence SALIENCE_SENTENCE,
                         computed in the padded batch, without the padding
"""
import json
import pathlib
import struct
import sys

import numpy as np
import torch
import transformers

here = pathlib.Path(__file__).parent
sys.path.insert(0, str(here.parent))
from write_tokens import load_tokenizer, read_sentences, write_tokens  # noqa: E402

SALIENCE_SENTENCE = 2

if len(sys.argv) != 2:
    sys.exit(__doc__)
model_directory = pathlib.Path(sys.argv[1])
sentences = read_sentences(here / "sentences.txt")
write_tokens(model_directory, sentences, here / "golden.tsv")
encodings = load_tokenizer(model_directory).encode_batch(sentences)
input_ids = torch.tensor([e.ids for e in encodings])
attention_mask = torch.tensor([e.attention_mask for e in encodings])

# What the model's card shows: the encoder, the mean over a sentence's tokens, length 1.
model = transformers.BertModel.from_pretrained(model_directory, attn_implementation="eager").double().eval()
with torch.no_grad():
    result = model(input_ids, attention_mask, output_attentions=True)
    hidden = result.last_hidden_state  # [sentence, seq, hidden]
    mask = attention_mask[:, :, None].double()
    mean = (hidden * mask).sum(1) / mask.sum(1)
    embeddings = torch.nn.functional.normalize(mean, dim=1).numpy()
tokens = int(attention_mask[SALIENCE_SENTENCE].sum())
salience = result.attentions[-1][SALIENCE_SENTENCE, :, :tokens, :tokens].numpy()

# The test compares rankings without a tolerance, so no two pairs may be nearly equally similar: neither
# among the pairs of one sentence, nor among all of them.
similarity = embeddings @ embeddings.T
first, second = np.triu_indices(len(sentences), k=1)
closest = np.diff(np.sort(similarity[first, second])).min()
print(f"{len(sentences)} sentences of {attention_mask.sum(1).min()} to {attention_mask.sum(1).max()} tokens, "
      f"{len(first)} pairs, closest two {closest:.1e} apart, similarities {similarity[first, second].min():.3f} to "
      f"{similarity[first, second].max():.3f}")
if closest < 5e-6:
    sys.exit("two pairs are too close to rank in float32: change a sentence")

header = {"__metadata__": {"torch": torch.__version__, "transformers": transformers.__version__}}
data = b""
for name, array in {"embeddings": embeddings, "salience": salience}.items():
    begin = len(data)
    data += array.astype("<f4").tobytes()
    header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [begin, len(data)]}
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
(here / "golden.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
