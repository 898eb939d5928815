"""Sentences become tokens: one line each, `sentence <tab> token ids <tab> attention mask`, padded to the longest.

    python write_tokens.py MODEL_DIRECTORY SENTENCES.txt TOKENS.tsv
"""
import json
import pathlib
import sys

from tokenizers import Tokenizer


def load_tokenizer(model: pathlib.Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    limit = json.loads((model / "sentence_bert_config.json").read_text())["max_seq_length"]
    tokenizer.enable_truncation(limit)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id("[PAD]"))  # to the longest, not the file's fixed 128
    return tokenizer


def write_tokens(model: pathlib.Path, sentences: list[str], path: pathlib.Path) -> None:
    lines = []
    for sentence, encoding in zip(sentences, load_tokenizer(model).encode_batch(sentences)):
        ids, mask = (" ".join(map(str, row)) for row in (encoding.ids, encoding.attention_mask))
        lines.append(f"{sentence}\t{ids}\t{mask}\n")
    path.write_text("".join(lines), encoding="utf-8")


def read_sentences(path: pathlib.Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").split("\n")
    sentences = [" ".join(line.split()) for line in lines]  # a tab would end the sentence's column
    return [sentence for sentence in sentences if sentence]


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    model, source, target = map(pathlib.Path, sys.argv[1:])
    try:
        sentences = read_sentences(source)
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"{source}: {error}")
    if not sentences:
        sys.exit(f"{source} has no sentences: write one on each line")
    write_tokens(model, sentences, target)
