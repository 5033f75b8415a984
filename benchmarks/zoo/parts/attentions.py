"""Attentions and mixers of tokens as libraries, tutorials and papers write them."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.zoo.parts.frames import WIDTH, conv, framed, tokens


class LibrarySelfAttention(nn.Module):
    """Hugging Face's ViT: sizes of a config object, three projections, views of tuples of sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(hidden_size=WIDTH, num_attention_heads=2, intermediate_size=48)
        self.num_attention_heads = self.config.num_attention_heads
        self.attention_head_size = int(self.config.hidden_size / self.config.num_attention_heads)
        self.all_head_size = self.num_attention_heads * self.attention_head_size
        self.query, self.key, self.value = (nn.Linear(WIDTH, self.all_head_size) for _ in range(3))
        self.dense, self.dropout = nn.Linear(self.all_head_size, WIDTH), nn.Dropout(0.1)
        self.layernorm_before, self.layernorm_after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.intermediate, self.output = nn.Linear(WIDTH, 48), nn.Linear(48, WIDTH)

    def _for_scores(self, x: Tensor) -> Tensor:
        return x.view(*(x.size()[:-1] + (self.num_attention_heads, self.attention_head_size))).permute(0, 2, 1, 3)

    def forward(self, hidden_states: Tensor) -> Tensor:
        x = self.layernorm_before(hidden_states)
        query, key, value = (self._for_scores(layer(x)) for layer in (self.query, self.key, self.value))
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(self.attention_head_size)
        context = torch.matmul(self.dropout(F.softmax(scores, dim=-1)), value).permute(0, 2, 1, 3).contiguous()
        context = context.view(*(context.size()[:-2] + (self.all_head_size,)))
        hidden_states = self.dense(context) + hidden_states
        return self.output(F.gelu(self.intermediate(self.layernorm_after(hidden_states)))) + hidden_states


class FlashCausal(nn.Module):
    """nanoGPT with torch's fused attention: heads from the tokens' width, dropout only while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.n_head, self.n_embd, self.dropout = 2, WIDTH, 0.1
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(approximate="tanh"), nn.Linear(64, WIDTH))

    def _attend(self, x: Tensor) -> Tensor:
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        share = self.dropout if self.training else 0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=share, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attend(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class AttentionPool(nn.Module):
    """CLIP's pooling: the mean of a map asks all places, by torch's function with separate layers' weights."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, WIDTH, stride=2), conv(WIDTH, WIDTH, stride=2))
        self.positional_embedding = nn.Parameter(torch.randn((image_size // 4) ** 2 + 1, WIDTH) / WIDTH**0.5)
        self.k_proj, self.q_proj, self.v_proj = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.c_proj, self.num_heads = nn.Linear(WIDTH, classes), 2

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        x = x.flatten(start_dim=2).permute(2, 0, 1)
        x = torch.cat([x.mean(dim=0, keepdim=True), x], dim=0)
        x = x + self.positional_embedding[:, None, :].to(x.dtype)
        x, _ = F.multi_head_attention_forward(
            query=x[:1],
            key=x,
            value=x,
            embed_dim_to_check=x.shape[-1],
            num_heads=self.num_heads,
            q_proj_weight=self.q_proj.weight,
            k_proj_weight=self.k_proj.weight,
            v_proj_weight=self.v_proj.weight,
            in_proj_weight=None,
            in_proj_bias=torch.cat([self.q_proj.bias, self.k_proj.bias, self.v_proj.bias]),
            bias_k=None,
            bias_v=None,
            add_zero_attn=False,
            dropout_p=0,
            out_proj_weight=self.c_proj.weight,
            out_proj_bias=self.c_proj.bias,
            use_separate_proj_weight=True,
            training=self.training,
            need_weights=False,
        )
        return x.squeeze(0)


class WeighedTokens(nn.Module):
    """Reads the weights that ``nn.MultiheadAttention`` returns, sequence first, under a mask of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.attend, self.norm = nn.MultiheadAttention(WIDTH, 2), nn.LayerNorm(WIDTH)
        self.register_buffer("mask", torch.triu(torch.ones(64, 64, dtype=torch.bool), diagonal=1))
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 48), nn.ReLU(), nn.Linear(48, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x).transpose(0, 1)
        mixed, weights = self.attend(x, x, x, attn_mask=self.mask[: x.size(0), : x.size(0)])
        x = (x + mixed).transpose(0, 1)
        return x + self.mlp(x) * weights.mean(1).unsqueeze(-1)


class ReadsTheCoarse(nn.Module):
    """Cross attention of one width by ``nn.MultiheadAttention``: queries of one tensor, keys and values of another."""

    def __init__(self) -> None:
        super().__init__()
        self.cross, self.norm_q, self.norm_kv = (
            nn.MultiheadAttention(WIDTH, 4, dropout=0.1, batch_first=True),
            nn.LayerNorm(WIDTH),
            nn.LayerNorm(WIDTH),
        )
        self.ffn = nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(), nn.Dropout(0.1), nn.Linear(64, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        memory = self.norm_kv(x[:, ::2])
        x = x + self.cross(self.norm_q(x), memory, memory, need_weights=False)[0]
        return x + self.ffn(x)


class ResizedPositions(nn.Module):
    """Interpolates learned positions to the map's size and joins registers (DINOv2's interpolate_pos_encoding)."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.patch_size, self.num_register_tokens = 4, 2
        self.patch_embed = nn.Conv2d(channels, WIDTH, 4, 4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.register_tokens = nn.Parameter(torch.randn(1, 2, WIDTH))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + 7 * 7, WIDTH))
        self.norm, self.mlp = (
            nn.LayerNorm(WIDTH),
            nn.Sequential(nn.Linear(WIDTH, 48), nn.GELU(), nn.Linear(48, WIDTH)),
        )
        self.head = nn.Linear(2 * WIDTH, classes)

    def _positions(self, w: int, h: int) -> Tensor:
        dim, side = self.pos_embed.shape[-1], int(math.sqrt(self.pos_embed.shape[1] - 1))
        patches = self.pos_embed[:, 1:].reshape(1, side, side, dim).permute(0, 3, 1, 2)
        size = (w // self.patch_size, h // self.patch_size)
        patches = F.interpolate(patches, mode="bicubic", antialias=False, size=size)
        return torch.cat((self.pos_embed[:, :1], patches.permute(0, 2, 3, 1).view(1, -1, dim)), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        B, _, w, h = x.shape
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        x = x + self._positions(w, h)
        x = torch.cat((x[:, :1], self.register_tokens.expand(x.shape[0], -1, -1), x[:, 1:]), dim=1)
        x = self.norm(x + self.mlp(x))
        return self.head(torch.cat([x[:, 0], x[:, self.num_register_tokens + 1 :].mean(dim=1)], dim=1))


class ExternalAttention(nn.Module):
    """Attention to two learned memories, normalised over places and then over memories."""

    def __init__(self) -> None:
        super().__init__()
        self.mk, self.mv = nn.Linear(WIDTH, 24, bias=False), nn.Linear(24, WIDTH, bias=False)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 48), nn.ReLU(), nn.Linear(48, WIDTH))

    def forward(self, queries: Tensor) -> Tensor:
        attn = torch.softmax(self.mk(queries), dim=1)
        attn = attn / torch.sum(attn, dim=2, keepdim=True)
        return queries + self.mlp(self.mv(attn))


class TalkingHeads(nn.Module):
    """Mixes the heads by linear layers before and after the softmax (CaiT)."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.scale = 4, 4**-0.5
        self.norm, self.qkv = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 48)
        self.proj_l, self.proj_w, self.proj = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        qkv = self.qkv(self.norm(x)).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0] * self.scale, qkv[1], qkv[2]
        attn = self.proj_l((q @ k.transpose(-2, -1)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(dim=-1)
        attn = self.proj_w(attn.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = x + self.proj((attn @ v).transpose(1, 2).reshape(B, N, C))
        return x + self.mlp(x)


class AttentionFree(nn.Module):
    """Weighs values by a softmax of keys over the tokens before, by cumulative sums (AFT)."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, 24) for _ in range(3))
        self.out = nn.Linear(24, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        weights = torch.exp(k - k.amax(1, keepdim=True))
        mixed = torch.cumsum(weights * v, dim=1) / (torch.cumsum(weights, dim=1) + 1e-6)
        return x + self.out(torch.sigmoid(q) * mixed)


class GatheredToken(nn.Module):
    """Classifies by the token where a score is largest, taken by integer indices (CLIP's text encoder)."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.embed, self.position = nn.Conv2d(channels, WIDTH, 4, 4), nn.Embedding((image_size // 4) ** 2, WIDTH)
        self.score, self.ln_final = nn.Linear(WIDTH, 1), nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 48), nn.GELU(), nn.Linear(48, WIDTH))
        self.text_projection = nn.Parameter(torch.randn(WIDTH, classes) / WIDTH**0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = x + self.position(torch.arange(x.shape[1], device=x.device))
        x = self.ln_final(x + self.mlp(x))
        best = self.score(x).squeeze(-1).argmax(dim=-1)
        return x[torch.arange(x.shape[0], device=x.device), best] @ self.text_projection


class KeptTokens(nn.Module):
    """Goes on with the tokens of the largest scores (DynamicViT, EViT)."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.keep = nn.Linear(WIDTH, 1), 8
        self.mlp = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 48), nn.GELU(), nn.Linear(48, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        score = self.score(x)
        index = score.squeeze(-1).topk(self.keep, dim=1).indices
        kept = torch.gather(x, 1, index.unsqueeze(-1).expand(-1, -1, x.size(2)))
        return kept + self.mlp(kept) * torch.gather(score, 1, index.unsqueeze(-1)).sigmoid()


class PatchMerging(nn.Module):
    """Joins 2x2 neighbours by slices, normalises and halves them (Swin)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * WIDTH), nn.Linear(4 * WIDTH, 2 * WIDTH, bias=False)
        self.mlp = nn.Sequential(nn.Linear(2 * WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        parts = [x[:, 0::2, 0::2, :], x[:, 1::2, 0::2, :], x[:, 0::2, 1::2, :], x[:, 1::2, 1::2, :]]
        x = self.reduction(self.norm(torch.cat(parts, -1)))
        return self.mlp(x).permute(0, 3, 1, 2)


class PenalizedDistance(nn.Module):
    """Attention with slopes by distance per head (ALiBi), and a mean over tokens that a buffer masks."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.head_dim = 2, 12
        self.qkv, self.out = nn.Linear(WIDTH, 72), nn.Linear(24, WIDTH)
        places = torch.arange(16)
        distance = (places[:, None] - places[None]).abs().float()
        self.register_buffer("bias", -distance * torch.tensor([0.5, 0.25])[:, None, None])
        self.register_buffer("valid", (places < 12).float()[None, :, None])

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, n, self.heads * self.head_dim))
        return (x * self.valid).sum(1, keepdim=True) / self.valid.sum(1, keepdim=True)


CONSTRUCTS: dict[str, Callable[..., nn.Module]] = {
    "library_self_attention": tokens(LibrarySelfAttention),
    "flash_causal": tokens(FlashCausal),
    "attention_pool": AttentionPool,
    "weighed_tokens": tokens(WeighedTokens),
    "reads_the_coarse": tokens(ReadsTheCoarse),
    "resized_positions": ResizedPositions,
    "external_attention": tokens(ExternalAttention),
    "talking_heads": tokens(TalkingHeads),
    "attention_free": tokens(AttentionFree),
    "gathered_token": GatheredToken,
    "kept_tokens": tokens(KeptTokens),
    "patch_merging": framed(PatchMerging),
    "penalized_distance": tokens(PenalizedDistance),
}
