"""hit@1 on Shapes against the share of words in a dual encoder's vectors: `make bench-dual`.

No pre-trained CLIP is needed: a small one is trained from scratch on pictures of Shapes and their
captions. T-CoTs are the true ones, or, for a share of the items, another item's: what a Reasoner's mistakes cost.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
from typing import Any

import numpy as np
import torch
from transformers import CLIPConfig, CLIPModel

from ume_retrieval.engines.sentence_transformers import fuse
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.samples import Pair, Sample
from ume_training.shapes.tasks import TASKS

SIDE, LENGTH = 48, 32
SHARES = tuple(round(0.1 * step, 1) for step in range(11))
WRONG = (0.0, 0.25, 0.5)
"""Shares of items with another item's T-CoT."""


class Encoder:
    """A CLIP whose words are whole words."""

    def __init__(self, words: list[str]) -> None:
        torch.manual_seed(0)
        self.words = {word: number for number, word in enumerate(words, 3)}
        shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
        text = {
            **shape,
            "vocab_size": len(words) + 3,
            "max_position_embeddings": LENGTH,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        }
        vision = {**shape, "image_size": SIDE, "patch_size": 8}
        self.model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))

    def pixels(self, images: list[Any]) -> torch.Tensor:
        """Pictures as the model takes them."""
        arrays = [np.asarray(image.convert("RGB").resize((SIDE, SIDE)), dtype=np.float32) for image in images]
        return torch.tensor(np.stack(arrays)).permute(0, 3, 1, 2) / 127.5 - 1

    def ids(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """Captions as the model takes them."""
        rows = [[1, *(self.words[w] for w in text.replace(",", " ,").replace(":", " :").split()), 2] for text in texts]
        ids = torch.tensor([row + [0] * (LENGTH - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}

    def train(self, rng: random.Random, steps: int, batch: int) -> None:
        """Contrastive training on scenes and their captions."""
        rate = torch.optim.AdamW(self.model.parameters(), 1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(rate, 1e-3, total_steps=steps)
        for step in range(steps):
            pairs = [draw(rng) for _ in range(batch)]
            images = self.pixels([pair.positive.item(rng).images[0] for pair in pairs])
            # Words in any order of things, as captions come.
            texts = [shuffled(pair.positive.tcot.answer, rng) for pair in pairs]
            loss = self.model(pixel_values=images, **self.ids(texts), return_loss=True).loss
            rate.zero_grad()
            loss.backward()
            rate.step()
            schedule.step()
            if step % 50 == 0:
                print(f"step {step}: loss {loss.item():.3f}", flush=True)

    def of_images(self, images: list[Any]) -> Any:
        """Unit vectors of pictures."""
        with torch.inference_mode():
            seen = self.model.get_image_features(pixel_values=self.pixels(images)).pooler_output
        return torch.nn.functional.normalize(seen, dim=-1).numpy()

    def of_texts(self, texts: list[str]) -> Any:
        """Unit vectors of captions."""
        with torch.inference_mode():
            said = self.model.get_text_features(**self.ids(texts)).pooler_output
        return torch.nn.functional.normalize(said, dim=-1).numpy()


def draw(rng: random.Random) -> Pair:
    """A scene to be found by its description."""
    return TASKS["text_to_image"].draw(rng, LEVELS["default"])


def shuffled(caption: str, rng: random.Random) -> str:
    """The same things in another order."""
    things = caption.split(", ")
    rng.shuffle(things)
    return ", ".join(things)


def hit_at_1(encoder: Encoder, rng: random.Random, samples: list[tuple[Sample, Sample]], wrong: float) -> list[float]:
    """hit@1 for each share of words; queries are words, the corpus is pictures with their T-CoTs' answers."""
    answers = [one.tcot.answer for _, one in samples]
    lied = [answers[(n + 1) % len(answers)] if rng.random() < wrong else text for n, text in enumerate(answers)]
    queries = [shuffled(one.tcot.answer, rng) for one, _ in samples]
    seen = encoder.of_images([one.item(rng).images[0] for _, one in samples])
    said = encoder.of_texts([shuffled(text, rng) for text in lied])
    asked = encoder.of_texts(queries)
    scores = []
    for share in SHARES:
        corpus = np.stack([fuse(np.stack(pair), [False, True], share) for pair in zip(seen, said, strict=True)])
        scores.append(float(np.mean((asked @ corpus.T).argmax(axis=1) == np.arange(len(samples)))))
    return scores


def main() -> None:
    """Train, and ask about worlds of other seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=48)
    options = parser.parse_args()
    rng = random.Random(1)
    words = sorted({w for _ in range(3000) for w in draw(rng).positive.tcot.answer.replace(",", " ,").split()})
    encoder = Encoder(words)
    encoder.train(random.Random(2), options.steps, options.batch)
    facts: dict[str, Any] = {"shares": SHARES, "queries": 3 * 200, "seeds": [11, 12, 13], "steps": options.steps}
    for wrong in WRONG:
        worlds = []
        for seed in facts["seeds"]:
            drawn = random.Random(seed)
            pairs = [draw(drawn) for _ in range(200)]
            worlds.append(hit_at_1(encoder, drawn, [(pair.query, pair.positive) for pair in pairs], wrong))
        facts[f"wrong_{wrong}"] = [round(score, 3) for score in np.mean(worlds, axis=0).tolist()]
        print(wrong, facts[f"wrong_{wrong}"], flush=True)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
