"""Joins the pieces that the work items of a corpus give to its documents."""

from __future__ import annotations

from gpt2_jax.prepare.corpora import Corpus
from gpt2_jax.prepare.work_items import WORK_ITEM_BYTES, Document
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.tokenizers.tokenizer import Tokenizer


def read(
    corpus: Corpus, item_bytes: int = WORK_ITEM_BYTES, tokenizer: Tokenizer | None = None
) -> list[Document]:
    documents: list[Document] = []
    for item in corpus.work_items(item_bytes):
        for piece in item.pieces(tokenizer or ByteTokenizer()):
            if piece.begins_document:
                documents.append(Document(piece.where, ""))
            last = documents[-1]
            documents[-1] = Document(last.name, last.text + piece.text)
    return documents
