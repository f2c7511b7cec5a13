"""A corpus's documents put together again from the pieces that its parts give."""

from __future__ import annotations

from gpt2_jax.prepare.corpora import Corpus
from gpt2_jax.prepare.work_items import PART_BYTES, Document
from gpt2_jax.tokenizers.tokenizer import ByteTokenizer, Tokenizer


def read(
    corpus: Corpus, part_bytes: int = PART_BYTES, tokenizer: Tokenizer | None = None
) -> list[Document]:
    found: list[Document] = []
    for part in corpus.parts(part_bytes):
        for text in part.texts(tokenizer or ByteTokenizer()):
            if text.begins:
                found.append(Document(text.where, ""))
            found[-1] = Document(found[-1].name, found[-1].text + text.text)
    return found
