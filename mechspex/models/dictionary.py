"""A dictionary of a model's activations: sparse latents that read them, directions that they write.

    a_i(x) = act(⟨w_i, x − b⟩ + b_i),    y = Σ_i a_i d_i + b_dec + error

A sparse autoencoder reads what it writes, x = y (Bricken et al. 2023); a transcoder reads what an
MLP reads and writes what the MLP writes (Dunefsky et al. 2024). A latent of a cross-layer
transcoder writes into the MLPs of all later layers as well (Ameisen et al. 2025): layer l of

    y_L = Σ_{l ≤ L} Σ_i a_i^l d_i^{l→L} + b_dec^L + error^L
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import save_file
from torch import Tensor

from mechspex.core.checks import PATH
from mechspex.core.doors import door
from mechspex.core.errors import DictionaryError

RULES = ("relu", "jumprelu", "topk", "gated")
# Numbers that a product over all latents makes at once, where only few of them are wanted.
_AT_ONCE = 2**22

# What lies at a hook point of a block: under all of its names, with what units are called there.
_PARTS = {
    "hook_resid_pre": "pre",
    "hook_in": "pre",
    "hook_resid_mid": "mid",
    "hook_mlp_in": "mid",
    "ln2.hook_in": "mid",
    "hook_resid_post": "",
    "hook_out": "",
    "hook_attn_out": "ATTN",
    "attn.hook_out": "ATTN",
    "hook_mlp_out": "MLP",
    "mlp.hook_out": "MLP",
    "ln2_post.hook_out": "MLP",
}
# What an MLP reads: before its norm, and after.
_MLP_READS = ("hook_resid_mid", "hook_mlp_in", "ln2.hook_in", "ln2.hook_normalized",
              "ln2.hook_out", "mlp.hook_in")  # fmt: skip


class Place(NamedTuple):
    """A hook point of a block.

    Attributes:
        layer: the block.
        point: the rest of its name in TransformerLens, ``hook_resid_post``.
    """

    layer: int
    point: str

    @classmethod
    def named(cls, hook: str) -> Place:
        """The place of a hook point.

        Raises:
            DictionaryError: it lies in no block, or between the heads of one.
        """
        found = re.fullmatch(r"blocks\.(\d+)\.([\w.]+)", hook)
        if found is None or found[2] not in {*_PARTS, *_MLP_READS}:
            raise DictionaryError(
                f"a dictionary at hook point {hook!r} cannot be used; it must lie on the residual "
                "stream (blocks.3.hook_resid_post, hook_resid_pre, hook_resid_mid), at "
                "hook_attn_out or hook_mlp_out, or read what an MLP reads (mlp.hook_in)"
            )
        return cls(int(found[1]), found[2])

    def __str__(self) -> str:
        return f"blocks.{self.layer}.{self.point}"


@dataclass(frozen=True, eq=False)
class Dictionary:
    """Sparse latents of a model's activations, and the directions that they write.

    Read from files by `load_dictionary`, or made of tensors.

    Attributes:
        reads: the hook point of what is encoded, ``blocks.15.hook_resid_post``.
        writes: the hook point of what is decoded; the same of an autoencoder.
        w_enc: what each latent reads, ``[d_in, latent]``.
        b_enc: its bias, ``[latent]``.
        w_dec: the direction that it writes, ``[latent, d_out]``.
        b_dec: what is written whatever the latents, ``[d_out]``.
        rule: its activation: ``relu``; ``jumprelu``, which is 0 up to a threshold; ``topk``, 0 but
            of the k largest at a position; ``gated``, by a gate and a magnitude of its own.
        centred: whether `b_dec` is subtracted from what is read.
        k: how many latents of ``topk`` are active at a position.
        threshold: up to which a latent of ``jumprelu`` is 0, ``[latent]``.
        r_mag: the logarithm of magnitude over gate, of ``gated``, ``[latent]``.
        b_mag: the bias of the magnitude; `b_enc` is that of the gate.
        skip: what is written of what is read past all latents, ``[d_out, d_in]``; None for nothing.
        later: the directions that the latents of one layer of a cross-layer transcoder write into
            the MLPs of the layers after it, ``[latent, d_out]`` each.
        earlier: the layers of a cross-layer transcoder whose latents write into this one's MLP
            too, so that its error is what all of them leave.
        folder: where it was read; None where it was made of tensors.

    Raises:
        DictionaryError: tensors that do not fit each other, or a rule that lacks its own.
    """

    reads: str
    writes: str
    w_enc: Float[Tensor, "_ _"]
    b_enc: Float[Tensor, " _"]
    w_dec: Float[Tensor, "_ _"]
    b_dec: Float[Tensor, " _"]
    rule: str = "relu"
    centred: bool = False
    k: int | None = None
    threshold: Float[Tensor, " _"] | None = None
    r_mag: Float[Tensor, " _"] | None = None
    b_mag: Float[Tensor, " _"] | None = None
    skip: Float[Tensor, "_ _"] | None = None
    later: tuple[Float[Tensor, "_ _"], ...] = ()
    earlier: tuple[Dictionary, ...] = ()
    folder: Path | None = None

    def __post_init__(self) -> None:
        self._check_places()
        if self.w_enc.ndim != 2 or self.w_dec.ndim != 2 or not self.w_dec.numel():
            raise DictionaryError(
                f"w_enc and w_dec of the dictionary at {self.writes} have shapes "
                f"{list(self.w_enc.shape)} and {list(self.w_dec.shape)}; give [d_in, latent] and "
                "[latent, d_out]"
            )
        n, d_in, d_out = self.n_latents, self.d_in, self.d_out
        wanted = {
            "w_enc": (d_in, n), "b_enc": (n,), "w_dec": (n, d_out), "b_dec": (d_out,),
            "threshold": (n,), "r_mag": (n,), "b_mag": (n,), "skip": (d_out, d_in),
        }  # fmt: skip
        for name, tensor in self._tensors().items():
            shape = wanted.get(name, (n, d_out))
            if tuple(tensor.shape) != shape:
                raise DictionaryError(
                    f"{name} of the dictionary at {self.writes} has shape {list(tensor.shape)}, "
                    f"expected {list(shape)}; the files may be of two dictionaries"
                )
            if not bool(torch.isfinite(tensor).all()):
                raise DictionaryError(
                    f"{name} of the dictionary at {self.writes} holds NaN or infinite numbers; "
                    "download or train it again"
                )
        self._check_rule()
        self._check_layers()
        if self.centred and d_in != d_out:
            raise DictionaryError(
                f"b_dec of {d_out} numbers cannot be subtracted from {d_in} that are read; set "
                "apply_b_dec_to_input to false"
            )

    def _check_places(self) -> None:
        reads, writes = Place.named(self.reads), Place.named(self.writes)
        if reads == writes and writes.point in _PARTS:
            return
        of_mlp = _PARTS.get(writes.point) == "MLP" and reads.point in _MLP_READS
        if not of_mlp or reads.layer != writes.layer:
            raise DictionaryError(
                f"a dictionary that reads {self.reads} and writes {self.writes} is neither an "
                "autoencoder, which writes what it reads, nor a transcoder of one MLP"
            )

    def _check_layers(self) -> None:
        if not self.later and not self.earlier:
            return
        if self.reads == self.writes:
            raise DictionaryError(
                f"the dictionary at {self.writes} is an autoencoder; only transcoders of MLPs "
                "write into later layers"
            )
        for one in self.earlier:
            reach = one.layer + len(one.later)
            if not one.layer < self.layer <= reach or one.d_out != self.d_out:
                raise DictionaryError(
                    f"latents of layer {one.layer} write {one.d_out:,} numbers up to layer "
                    f"{reach}; they cannot be earlier ones of layer {self.layer}, of {self.d_out:,}"
                )

    def _check_rule(self) -> None:
        owed = {"jumprelu": ("threshold",), "topk": ("k",), "gated": ("r_mag", "b_mag")}
        if self.rule not in RULES:
            raise DictionaryError(
                f"latents of rule {self.rule!r} are not known; choose {', '.join(RULES)}"
            )
        for name in owed.get(self.rule, ()):
            if getattr(self, name) is None:
                raise DictionaryError(f"a dictionary of {self.rule} latents needs its {name}")
        if self.k is not None and not 1 <= self.k <= self.n_latents:
            raise DictionaryError(f"k = {self.k}: give 1 … {self.n_latents}, the latents there are")

    @property
    def n_latents(self) -> int:
        """How many latents there are."""
        return self.w_dec.shape[0]

    @property
    def d_in(self) -> int:
        """How many numbers it reads at a position."""
        return self.w_enc.shape[0]

    @property
    def d_out(self) -> int:
        """How many numbers it writes at a position."""
        return self.w_dec.shape[1]

    @property
    def layer(self) -> int:
        """The block it lies in."""
        return Place.named(self.writes).layer

    @property
    def called(self) -> str:
        """What the names of its units begin with: ``L15``, or ``L15MLP`` of what an MLP writes."""
        place = Place.named(self.writes)
        return f"L{place.layer}{_PARTS[place.point]}"

    @property
    def crosses(self) -> bool:
        """Whether it is a layer of a cross-layer transcoder that is tied to another one."""
        return bool(self.later or self.earlier)

    @property
    def sizes(self) -> Float[Tensor, " latent"]:
        """The length of all that each latent writes, ‖d_i‖."""
        return torch.cat([self.w_dec, *self.later], dim=1).norm(dim=1)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that its activations depend on, in sixteen digits."""
        digest = hashlib.sha256(f"{self.reads} {self.writes} {self.rule}".encode())
        digest.update(f"{self.centred} {self.k}".encode())
        for name, tensor in self._tensors().items():
            digest.update(f"{name} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
        for one in self.earlier:
            digest.update(one.digest.encode())
        return digest.hexdigest()[:16]

    def to(self, device: torch.device, dtype: torch.dtype) -> Dictionary:
        """The same on another device, in another dtype; itself where nothing changes.

        Args:
            device: where it computes.
            dtype: the dtype of its tensors.
        """
        moved = {name: t.to(device, dtype) for name, t in self._tensors().items()}
        if all(moved[name] is tensor for name, tensor in self._tensors().items()):
            return self
        later = tuple(moved.pop(name) for name in self._later_named())
        earlier = tuple(one.to(device, dtype) for one in self.earlier)
        return replace(self, **moved, later=later, earlier=earlier)

    def activations(
        self, read: Float[Tensor, "*shape d_in"], chosen: Int[Tensor, " chosen"] | None = None
    ) -> Float[Tensor, "*shape chosen"]:
        """What latents make of activations; of the chosen ones alone nothing else is kept.

        Args:
            read: the activations at `reads`.
            chosen: the latents; all if not given.
        """
        x = read - self.b_dec if self.centred else read
        every = slice(None) if chosen is None else chosen
        bias = self.b_enc[every]
        before = torch.matmul(x, self.w_enc[:, every]) + bias
        if self.rule == "gated":
            assert self.r_mag is not None
            assert self.b_mag is not None
            size = (before - bias) * self.r_mag[every].exp() + self.b_mag[every]
            return size.relu() * (before > 0)
        if self.rule == "jumprelu":
            assert self.threshold is not None
            return before.relu() * (before > self.threshold[every])
        if self.rule == "topk":
            among = self._among_top(before, None) if chosen is None else self._top(x, chosen)
            return before.relu() * among
        return before.relu()

    def reconstruction(self, read: Float[Tensor, "*shape d_in"]) -> Float[Tensor, "*shape d_out"]:
        """What all latents and the bias write together, without the error.

        Args:
            read: the activations at `reads`.
        """
        parts = [self._reconstruction(part) for part in self._in_parts(read)]
        return torch.cat(parts).view(*read.shape[:-1], self.d_out)

    def written_later(
        self, read: Float[Tensor, "*shape d_in"], layer: int
    ) -> Float[Tensor, "*shape d_out"]:
        """What all latents write together into the MLP of a later layer.

        Args:
            read: the activations at `reads`.
            layer: the later layer.
        """
        directions = self.later[layer - self.layer - 1]
        parts = [self.activations(part) @ directions for part in self._in_parts(read)]
        return torch.cat(parts).view(*read.shape[:-1], directions.shape[1])

    def _reconstruction(self, rows: Tensor) -> Tensor:
        written = torch.addmm(self.b_dec, self.activations(rows), self.w_dec)
        return written if self.skip is None else torch.addmm(written, rows, self.skip.T)

    def _in_parts(self, read: Tensor) -> tuple[Tensor, ...]:
        """Positions as rows, as many at a time as make one table of all latents."""
        return read.reshape(-1, read.shape[-1]).split(max(1, _AT_ONCE // self.n_latents))

    @torch.no_grad()
    def _top(self, x: Tensor, chosen: Tensor) -> Bool[Tensor, "*shape chosen"]:
        """Whether each chosen latent is among the k largest of all."""
        parts = [
            self._among_top(torch.addmm(self.b_enc, part, self.w_enc), chosen)
            for part in self._in_parts(x)
        ]
        return torch.cat(parts).view(*x.shape[:-1], len(chosen))

    def _among_top(self, before: Tensor, chosen: Tensor | None) -> Tensor:
        assert self.k is not None
        least = before.detach().topk(self.k, dim=-1).values[..., -1:]
        return (before if chosen is None else before[..., chosen]) >= least

    def _tensors(self) -> dict[str, Tensor]:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        own = {name: one for name, one in given.items() if isinstance(one, Tensor)}
        return own | self._later_named()

    def _later_named(self) -> dict[str, Tensor]:
        return {f"later[{number}]": one for number, one in enumerate(self.later)}

    @door(folder=PATH)
    def save(self, folder: str | Path) -> None:
        """Write it in the layout of SAELens: ``cfg.json`` and ``sae_weights.safetensors``.

        Args:
            folder: made where it is not there.

        Raises:
            DictionaryError: a layer of a cross-layer transcoder, which is no file of its own.
        """
        if self.crosses:
            raise DictionaryError(
                f"the dictionary at {self.writes} is one layer of a cross-layer transcoder, and "
                "this layout holds whole dictionaries; keep the folder it was read from"
            )
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        transcodes = self.reads != self.writes
        architecture = {"relu": "standard"}.get(self.rule, self.rule)
        configuration = {
            "architecture": "transcoder" if transcodes and self.rule == "relu" else architecture,
            "d_in": self.d_in,
            "d_sae": self.n_latents,
            "d_out": self.d_out,
            "apply_b_dec_to_input": self.centred,
            "normalize_activations": "none",
            "metadata": {"hook_name": self.reads, "hook_name_out": self.writes},
        } | ({} if self.k is None else {"k": self.k})
        in_file = {"w_enc": "W_enc", "w_dec": "W_dec", "skip": "W_skip"}
        if self.rule == "gated":
            in_file["b_enc"] = "b_gate"
        tensors = {in_file.get(n, n): t.cpu().contiguous() for n, t in self._tensors().items()}
        save_file(tensors, folder / "sae_weights.safetensors")
        (folder / "cfg.json").write_text(json.dumps(configuration, indent=2) + "\n")
