"""Writes small folders in Hugging Face's format, of every kind that differs in tokenizer or ends.

The fixture script asks transformers what it does with each kind; the tests ask this package.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.formats.echo_folder import Folder

RECORDED = Path(__file__).parent / "fixtures" / "folder_kinds.json"
TEXTS = ["It is a truth", "  in\n\n\u00e9t\u00e9's 1813", "<|endoftext|> is text"]
POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


def _sentencepiece() -> bytes:
    """Returns a sentencepiece model of four pieces, as its protocol buffer."""
    pieces = [("<unk>", 2), ("<s>", 3), ("</s>", 3), ("\u2581a", 1)]
    content = b""
    for text, kind in pieces:
        name = text.encode()
        piece = b"\n" + bytes([len(name)]) + name + b"\x15" + struct.pack("<f", 0) + b"\x18"
        content += b"\n" + bytes([len(piece) + 1]) + piece + bytes([kind])
    return content


def _model(folder: Folder, model: dict[str, Any], **settings: Any) -> None:
    """Makes tokenizer.json one of another kind, in a folder without other files."""
    folder.keep("tokenizer.json")
    content = folder.files["tokenizer.json"]
    content.update(
        model=model, added_tokens=[], pre_tokenizer={"type": "Whitespace"}, post_processor=None,
        decoder=None,
    )  # fmt: skip
    content.update(settings)


_WORDS = {"[UNK]": 0, "it": 1, "is": 2, "a": 3, "truth": 4}


def _plain(folder: Folder) -> None:
    """Changes nothing."""


def _json_only(folder: Folder) -> None:
    folder.keep("tokenizer.json")


def _pair_only(folder: Folder) -> None:
    folder.keep("vocab.json", "merges.txt")


def _added_tokens_json(folder: Folder) -> None:
    folder.keep("vocab.json", "merges.txt")
    folder.files["added_tokens.json"] = {"<stop>": 300}
    folder.files["special_tokens_map.json"] = {"eos_token": "<stop>"}
    folder.config |= {"vocab_size": 301, "eos_token_id": 300}


def _added_tokens_json_alone(folder: Folder) -> None:
    folder.keep("vocab.json", "merges.txt")
    folder.files["added_tokens.json"] = {"<stop>": 300}
    folder.config |= {"vocab_size": 301}


def _map_strings(folder: Folder) -> None:
    folder.keep("tokenizer.json")
    folder.add("<stop>")
    folder.files["special_tokens_map.json"] = {"eos_token": "<stop>", "bos_token": "<|endoftext|>"}


def _map_dicts(folder: Folder) -> None:
    _map_strings(folder)
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    folder.files["special_tokens_map.json"] = {"eos_token": {"content": "<stop>", **flags}}
    folder.config["eos_token_id"] = 300


def _tokenizer_config_eos(folder: Folder) -> None:
    folder.add("<stop>")
    folder.files["tokenizer_config.json"]["eos_token"] = "<stop>"


def _config_list(folder: Folder) -> None:
    folder.config["eos_token_id"] = [0, 13]


def _generation_only(folder: Folder) -> None:
    folder.config = {k: v for k, v in folder.config.items() if not k.endswith("_token_id")}
    folder.files["generation_config.json"] = {"eos_token_id": 14, "bos_token_id": 0}


def _generation_list(folder: Folder) -> None:
    folder.files["generation_config.json"] = {"eos_token_id": [0, 13, 299], "bos_token_id": 0}


def _generation_without(folder: Folder) -> None:
    folder.files["generation_config.json"] = {"max_length": 16}


def _generation_other(folder: Folder) -> None:
    folder.files["generation_config.json"] = {"eos_token_id": 13}


def _no_ids(folder: Folder) -> None:
    folder.config = {k: v for k, v in folder.config.items() if not k.endswith("_token_id")}


def _null(folder: Folder) -> None:
    folder.config["eos_token_id"] = None


def _bos(folder: Folder) -> None:
    folder.config["bos_token_id"] = 5


def _vocab_alone(folder: Folder) -> None:
    folder.keep("vocab.json")


def _merges_alone(folder: Folder) -> None:
    folder.keep("merges.txt")


def _gpt2_size_vocab_alone(folder: Folder) -> None:
    folder.keep("vocab.json")
    folder.config |= {"vocab_size": 50257, "bos_token_id": 50256, "eos_token_id": 50256}


def _wordpiece_txt(folder: Folder) -> None:
    folder.keep()
    folder.files["vocab.txt"] = "".join(f"{word}\n" for word in _WORDS)
    folder.files["tokenizer_config.json"] = {"tokenizer_class": "BertTokenizer"}


def _gpt2_size_wordpiece_txt(folder: Folder) -> None:
    folder.keep()
    folder.files["vocab.txt"] = "".join(f"{word}\n" for word in _WORDS)
    folder.config |= {"vocab_size": 50257, "bos_token_id": 50256, "eos_token_id": 50256}


def _spiece(folder: Folder) -> None:
    folder.keep()
    folder.files["spiece.model"] = _sentencepiece()


def _word_level(folder: Folder) -> None:
    _model(folder, {"type": "WordLevel", "vocab": _WORDS, "unk_token": "[UNK]"})


def _unigram(folder: Folder) -> None:
    vocab = [[word, -float(i)] for word, i in _WORDS.items()]
    _model(folder, {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": False})


def _wordpiece_json(folder: Folder) -> None:
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    _model(folder, model | {"max_input_chars_per_word": 100, "vocab": _WORDS})


def _prefix_space(folder: Folder) -> None:
    folder.keep("tokenizer.json")
    folder.files["tokenizer.json"]["pre_tokenizer"]["add_prefix_space"] = True


def _prefix_space_setting(folder: Folder) -> None:
    folder.files["tokenizer_config.json"]["add_prefix_space"] = True


def _normalizer(folder: Folder) -> None:
    folder.keep("tokenizer.json")
    folder.files["tokenizer.json"]["normalizer"] = {"type": "Lowercase"}


def _template(folder: Folder) -> None:
    folder.keep("tokenizer.json")
    end = {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}
    folder.files["tokenizer.json"]["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<|endoftext|>": end},
    }


def _add_bos(folder: Folder) -> None:
    folder.files["tokenizer_config.json"]["add_bos_token"] = True


def _padded(folder: Folder) -> None:
    folder.config["vocab_size"] = 320


def _too_large(folder: Folder) -> None:
    folder.config["vocab_size"] = 290


def _none_of_gpt2(folder: Folder) -> None:
    folder.keep()
    folder.config |= {"vocab_size": 50257, "bos_token_id": 50256, "eos_token_id": 50256}


def _none_without_ids(folder: Folder) -> None:
    folder.keep()
    folder.config = {k: v for k, v in folder.config.items() if not k.endswith("_token_id")}
    folder.config["vocab_size"] = 50257


def _none_of_33(folder: Folder) -> None:
    folder.keep()
    folder.config |= {"vocab_size": 33, "bos_token_id": 0, "eos_token_id": 2}


def _more_specials(folder: Folder) -> None:
    folder.add("<pad>", "<sep>")
    folder.files["tokenizer_config.json"] |= {"pad_token": "<pad>", "sep_token": "<sep>"}


def _decoder_specials(folder: Folder) -> None:
    folder.keep("vocab.json", "merges.txt", "tokenizer_config.json")
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    folder.files["tokenizer_config.json"] |= {
        "eos_token": "<stop>",
        "added_tokens_decoder": {"300": {"content": "<stop>", "special": True, **flags}},
    }
    folder.config |= {"vocab_size": 301, "eos_token_id": 300}


def _unknown_eos(folder: Folder) -> None:
    folder.files["tokenizer_config.json"]["eos_token"] = "<stop>"


def _other_class(folder: Folder) -> None:
    folder.files["tokenizer_config.json"]["tokenizer_class"] = "BertTokenizer"


def _pointer_weights(folder: Folder) -> None:
    folder.files["model.safetensors"] = POINTER


def _pointer_tokenizer(folder: Folder) -> None:
    folder.keep("tokenizer.json")
    folder.files["tokenizer.json"] = POINTER


KINDS: dict[str, tuple[str, Callable[[Folder], None]]] = {
    "plain": ("all of GPT-2's files", _plain),
    "json_only": ("`tokenizer.json` only", _json_only),
    "pair_only": ("`vocab.json` and `merges.txt` only", _pair_only),
    "added_eos": ("`added_tokens.json` with a new end of text, which the config names",
                  _added_tokens_json),
    "added_alone": ("`added_tokens.json` with a token that no other file mentions",
                    _added_tokens_json_alone),
    "map_strings": ("`special_tokens_map.json` of strings, with an end of text that the config "
                    "does not name", _map_strings),
    "map_dicts": ("`special_tokens_map.json` of objects, with the end of text of the config",
                  _map_dicts),
    "tokenizer_config_eos": ("`tokenizer_config.json` with another end of text than the config",
                             _tokenizer_config_eos),
    "decoder_eos": ("`added_tokens_decoder` of `tokenizer_config.json` with a new end of text",
                    _decoder_specials),
    "unknown_eos": ("`tokenizer_config.json` with an end of text that has no id", _unknown_eos),
    "config_list": ("`eos_token_id` of `config.json` is a list", _config_list),
    "generation_only": ("`eos_token_id` in `generation_config.json` only", _generation_only),
    "generation_list": ("`eos_token_id` of `generation_config.json` is a list", _generation_list),
    "generation_other": ("`generation_config.json` and `config.json` name different ends",
                         _generation_other),
    "generation_without": ("`generation_config.json` names no end, `config.json` does",
                           _generation_without),
    "no_ids": ("no `eos_token_id` anywhere", _no_ids),
    "null_eos": ("`eos_token_id` is null", _null),
    "other_bos": ("`bos_token_id` is not `eos_token_id`", _bos),
    "vocab_alone": ("`vocab.json` without `merges.txt`", _vocab_alone),
    "gpt2_vocab_alone": ("the same, with 50257 rows", _gpt2_size_vocab_alone),
    "merges_alone": ("`merges.txt` without `vocab.json`", _merges_alone),
    "wordpiece_txt": ("WordPiece's `vocab.txt`", _wordpiece_txt),
    "gpt2_wordpiece_txt": ("the same, with 50257 rows and no tokenizer class",
                           _gpt2_size_wordpiece_txt),
    "sentencepiece": ("a sentencepiece model, `spiece.model`", _spiece),
    "word_level": ("WordLevel `tokenizer.json`", _word_level),
    "unigram": ("Unigram `tokenizer.json`", _unigram),
    "wordpiece_json": ("WordPiece `tokenizer.json`", _wordpiece_json),
    "prefix_space": ("`tokenizer.json` with `add_prefix_space`", _prefix_space),
    "prefix_space_setting": ("`tokenizer_config.json` with `add_prefix_space`",
                             _prefix_space_setting),
    "normalizer": ("`tokenizer.json` with a normalizer", _normalizer),
    "template": ("`tokenizer.json` that adds a token before each text", _template),
    "add_bos": ("`tokenizer_config.json` with `add_bos_token`", _add_bos),
    "other_class": ("`tokenizer_config.json` with the class BertTokenizer", _other_class),
    "padded": ("more rows than tokens", _padded),
    "too_large": ("more tokens than rows", _too_large),
    "none_gpt2": ("no tokenizer files, 50257 rows", _none_of_gpt2),
    "none_no_ids": ("the same, without `eos_token_id`", _none_without_ids),
    "none_33": ("no tokenizer files, 33 rows (a protein model)", _none_of_33),
    "more_specials": ("more special tokens (`<pad>`, `<sep>`)", _more_specials),
    "pointer_weights": ("a Git LFS pointer instead of the weights", _pointer_weights),
    "pointer_tokenizer": ("a Git LFS pointer instead of `tokenizer.json`", _pointer_tokenizer),
}  # fmt: skip


def write_kind(kind: str, path: Path) -> Path:
    """Writes a folder of that kind and returns its path."""
    folder = Folder()
    KINDS[kind][1](folder)
    folder.write(path)
    return path
