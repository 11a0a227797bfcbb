"""A BERT encoder of a few lines, to run all-MiniLM-L6-v2's published weights without its library."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width, inner, heads, eps):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.attended = (nn.Linear(width, width) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x, mask):
        split = [
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        ]
        attended = F.scaled_dot_product_attention(*split, attn_mask=mask).transpose(1, 2).flatten(2)
        x = self.norm1(x + self.attended(attended))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class Encoder(nn.Module):
    """Sentence embeddings, mean-pooled and of length 1: `[n, width]` of `[n, tokens]` ids and mask."""

    def __init__(self, vocabulary, positions, width, inner, layers, heads, eps):
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.kinds = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps)
        self.blocks = nn.ModuleList(Block(width, inner, heads, eps) for _ in range(layers))

    def forward(self, input_ids, attention_mask):
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.words(input_ids) + self.places(places) + self.kinds(torch.zeros_like(input_ids))
        x = self.norm(x)
        for block in self.blocks:
            x = block(x, attention_mask.bool()[:, None, None, :])
        kept = attention_mask.unsqueeze(-1).to(x.dtype)
        return F.normalize((x * kept).sum(1) / kept.sum(1), dim=-1)


_NAMES = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attended",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "norm2",
}


def build(folder):
    """The encoder that a folder's `config.json` describes, with fresh weights."""
    config = json.loads((Path(folder) / "config.json").read_text())
    return Encoder(
        config["vocab_size"],
        config["max_position_embeddings"],
        config["hidden_size"],
        config["intermediate_size"],
        config["num_hidden_layers"],
        config["num_attention_heads"],
        config["layer_norm_eps"],
    )


def load(folder):
    """The encoder with the weights in a folder of `config.json` and `model.safetensors`."""
    model, state = build(folder), {}
    for name, value in load_file(Path(folder) / "model.safetensors").items():
        mine = _mine(name)
        if mine:
            state[mine] = value
    model.load_state_dict(state)
    return model.eval()


def _mine(name):
    embeddings = {
        "word_embeddings": "words",
        "position_embeddings": "places",
        "token_type_embeddings": "kinds",
    }
    if name.startswith("embeddings."):
        part, _, own = name.removeprefix("embeddings.").partition(".")
        return f"{embeddings.get(part, 'norm')}.{own}" if own else None
    if not name.startswith("encoder.layer."):
        return None
    number, _, rest = name.removeprefix("encoder.layer.").partition(".")
    part, _, own = rest.rpartition(".")
    return f"blocks.{number}.{_NAMES[part]}.{own}"
