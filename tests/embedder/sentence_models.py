"""Small random sentence-transformers models on disk, one of each kind that users load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = ["a", "red", "blue", "green", "circle", "square", "cross", "is", "left", "of", "the", "find", "page", "query"]
LETTERS = [chr(letter) for letter in range(33, 127)]
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def save_tokenizer(folder: Path, length: int) -> int:
    """A WordPiece tokenizer that reads any ASCII text; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    entries = list(dict.fromkeys([*MARKS, *LETTERS, *("##" + letter for letter in LETTERS), *WORDS]))
    vocabulary = {entry: number for number, entry in enumerate(entries)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=length,
    )
    fast.save_pretrained(folder)
    return len(vocabulary)


def text_reader(folder: Path, *, length: int, seed: int) -> Any:
    """The first module of a text model: a random BERT that reads `length` tokens."""
    from sentence_transformers.base.modules import Transformer
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    size = save_tokenizer(folder, length)
    config = BertConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
    )
    BertModel(config).save_pretrained(folder)
    return Transformer(str(folder), max_seq_length=length)


def text_model(folder: Path, prompts: dict[str, str], *, length: int = 64, dense: bool = False) -> Path:
    """A model like E5 (mean pooling and prompts), or like EmbeddingGemma with its dense layers."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.sentence_transformer.modules import Pooling

    reader = text_reader(folder.with_name(folder.name + "-weights"), length=length, seed=3)
    torch.manual_seed(4)
    layers = [Dense(32, 48, activation_function=torch.nn.Identity())] if dense else []
    modules = [reader, Pooling(32, "mean"), *layers, Normalize()]
    SentenceTransformer(modules=modules, device="cpu", prompts=prompts).save_pretrained(str(folder))
    return folder


def routed_model(folder: Path, *, dense: bool = False) -> Path:
    """An asymmetric model: queries and documents have weights and lengths of their own."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Router
    from sentence_transformers.sentence_transformer.modules import Pooling

    routes = {
        name: [
            text_reader(folder.with_name(f"{folder.name}-{name}"), length=length, seed=seed),
            Pooling(32, "mean"),
            *([Dense(32, 16)] if dense else []),
        ]
        for name, length, seed in (("query", 16, 5), ("document", 64, 6))
    }
    router = Router.for_query_document(query_modules=routes["query"], document_modules=routes["document"])
    SentenceTransformer(modules=[router], device="cpu").save_pretrained(str(folder))
    return folder


def clip_model(folder: Path) -> Path:
    """A dual encoder: words or one picture at a time, 40 tokens, pictures of 32 x 32 pixels."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

    weights = folder.with_name(folder.name + "-weights")
    torch.manual_seed(7)
    size = save_tokenizer(weights, 40)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    text = {**shape, "vocab_size": size, "max_position_embeddings": 40, "eos_token_id": 3, "pad_token_id": 0}
    config = CLIPConfig(text_config=text, vision_config={**shape, "image_size": 32, "patch_size": 8}, projection_dim=16)
    CLIPModel(config).save_pretrained(weights)
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(pictures, PreTrainedTokenizerFast.from_pretrained(weights)).save_pretrained(weights)
    SentenceTransformer(modules=[Transformer(str(weights))], device="cpu").save_pretrained(str(folder))
    return folder
