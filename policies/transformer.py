"""The Locomotion-Transformer: one causal sequence model in place of several specialists.

Every control step of its context gives two tokens, one for the action before it and one for what was sensed and asked,
and the newest terrain gives one more, at which the next action is read (arXiv 2305.14654, section IV-B). In training an
action is read at every step of a window, each with the terrain of its own step; on the robot only at the newest. Action
and state tokens never see terrain, so that both give the same numbers.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from sim import observation as obs
from sim.errors import InputError
from sim.observation import Layout
from sim.robots.description import default_robot
from sim.robots.gaits import DRIVEN


def generalist_layout(joints: int, context: int = 15, clock: bool = True) -> Layout:
    """What the generalist of a robot with so many joints sees: `context` stamped frames, with its clock or without, and
    the grids of the walker and of the jumper."""
    return Layout(joints, frames=tuple(range(context)), grids=(obs.around(), obs.ahead()), clock=clock, stamped=True)


@dataclass(frozen=True)
class TransformerConfig:
    """Size of the model. The default has fewer than a million parameters."""

    context: int = 15
    """Control steps that it sees."""
    width: int = 128
    layers: int = 3
    heads: int = 4
    channels: int = 16
    """Of the first convolution over a grid of heights; the second has twice as many."""
    kind: str = "transformer"
    """`transformer`, or `mlp`: one network of dense layers over the same context, to compare with."""
    hidden: tuple[int, ...] = (512, 512, 256)
    """Layers of the `mlp`."""
    joints: int = field(default_factory=lambda: default_robot().joints)
    """Of the robot that it drives."""
    clock: bool = True
    """Whether it sees the clock that it drives; where nothing is known of one, its frequency stays what it is."""

    def __post_init__(self) -> None:
        if not 1 <= self.context <= obs.LONGEST_HISTORY:
            raise InputError(f"a context must be 1 to {obs.LONGEST_HISTORY} steps, got {self.context}")
        if min(self.width, self.layers, self.heads, self.channels) < 1 or self.width % self.heads:
            raise InputError(f"a transformer of width {self.width} cannot have {self.heads} heads")
        if self.kind not in ("transformer", "mlp"):
            raise InputError(f"unknown kind of student '{self.kind}': known are transformer, mlp")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {**asdict(self), "hidden": list(self.hidden)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TransformerConfig":
        """Inverse of `to_dict`."""
        return cls(**{**values, "hidden": tuple(values["hidden"])})


class Block(nn.Module):
    """Pre-norm self-attention and feed-forward, both residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inputs, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x` `[B, T, width]`; `mask` `[T, T]` is added to the attention scores."""
        batch, tokens, width = x.shape
        split = self.inputs(self.norm_1(x)).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        seen = _attention(query, key, value, mask)
        x = x + self.output(seen.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.feed(self.norm_2(x))


class GridEncoder(nn.Module):
    """Two convolutions over one grid of heights, then one projection; ReLU on what comes out."""

    def __init__(self, rows: int, columns: int, channels: int, width: int) -> None:
        super().__init__()
        self.shape = rows, columns
        stride = (2, 2 if columns > 2 else 1)
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, 2 * channels, 3, stride, 1), nn.ReLU()
        )
        out = 2 * channels * -(-rows // stride[0]) * -(-columns // stride[1])
        self.projection = nn.Linear(out, width)

    def forward(self, heights: Tensor) -> Tensor:
        """`[N, rows * columns]` to `[N, width]`."""
        x = self.layers(heights.view(-1, 1, *self.shape))
        return torch.relu(self.projection(x.flatten(1)))


class Normalizer(nn.Module):
    """Mean and standard deviation of inputs, kept with the parameters and baked into the exported graph."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.mean: Tensor
        self.std: Tensor

    def fit(self, mean: np.ndarray, std: np.ndarray, least: float = 0.05) -> None:
        """Takes over statistics `[size]`; deviations below `least` count as that."""
        self.mean.copy_(torch.as_tensor(mean, dtype=torch.float32))
        self.std.copy_(torch.as_tensor(np.maximum(std, least), dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class LocomotionTransformer(nn.Module):
    """Actions from stamped frames and terrain heights: `forward` over windows, `newest` as it runs on the robot."""

    def __init__(self, config: TransformerConfig = TransformerConfig()) -> None:
        super().__init__()
        self.config, self.layout = config, generalist_layout(config.joints, config.context, config.clock)
        joints, actions = config.joints, DRIVEN.actions(config.joints)
        self.last_action = obs.frame_slices(joints)["last_action"]
        """Where a stamped frame holds the last action; the rest of it is state, command and clock."""
        width, size = config.width, self.layout.frame_size
        self.frames, self.heights = Normalizer(size), Normalizer(self.layout.height_size)
        self.encoders = nn.ModuleList(
            GridEncoder(len(grid.x), len(grid.y), config.channels, width) for grid in self.layout.grids
        )
        if config.kind == "mlp":
            sizes = (config.context * size + width, *config.hidden)
            dense = [layer for a, b in zip(sizes, sizes[1:], strict=False) for layer in (nn.Linear(a, b), nn.ReLU())]
            self.dense = nn.Sequential(*dense)
            self.head = nn.Linear(sizes[-1], actions)
        else:
            self.state = nn.Linear(size - joints, width)
            self.action = nn.Linear(joints, width)
            self.age = nn.Parameter(0.02 * torch.randn(config.context, width))
            self.role = nn.Parameter(0.02 * torch.randn(3, width))
            self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.layers))
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, actions)
        nn.init.zeros_(self.head.bias)
        with torch.no_grad():
            self.head.weight.mul_(0.1)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.parameters())

    def shortened(self, context: int) -> "LocomotionTransformer":
        """A model with these parameters that sees the newest `context` steps alone, to be trained on: cheaper, and as
        good where what is older says nothing.

        Raises:
          InputError: an MLP, or it does not see so many.
        """
        if self.config.kind == "mlp" or context > self.config.context:
            raise InputError(f"a {self.config.kind} of {self.config.context} steps of context cannot have {context}")
        short = LocomotionTransformer(replace(self.config, context=context))
        kept = {name: value.detach().clone() for name, value in self.state_dict().items()}
        short.load_state_dict({**kept, "age": kept["age"][-context:]})
        return short

    def forward(self, frames: Tensor, heights: Tensor) -> Tensor:
        """Actions at every step of a window `[B, T, J + 1]`, or at its last `[B, 1, J + 1]` for an MLP.

        `frames` `[B, T, frame]` oldest first, `heights` `[B, T, n]` of the same steps. A step's action depends on its
        own heights and on the frames up to it.
        """
        if self.config.kind == "mlp":
            return self.newest(frames, heights[:, -1])[:, None]
        batch, steps = frames.shape[:2]
        terrain = self._terrain(heights.flatten(0, 1)).view(batch, steps, -1)
        tokens = torch.cat([self._moving(frames), terrain + self.age + self.role[2]], 1)
        return self._read(tokens, _mask(steps, steps, frames.device), steps)

    def newest(self, frames: Tensor, heights: Tensor) -> Tensor:
        """The action after the last frame `[B, J + 1]`: `frames` `[B, T, frame]` oldest first, `heights` `[B, n]`."""
        terrain = self._terrain(heights)
        if self.config.kind == "mlp":
            return self.head(self.dense(torch.cat([self.frames(frames).flatten(1), terrain], -1)))
        tokens = torch.cat([self._moving(frames), (terrain + self.age[-1] + self.role[2])[:, None]], 1)
        return self._read(tokens, _mask(frames.shape[1], 1, frames.device), 1)[:, 0]

    def _terrain(self, heights: Tensor) -> Tensor:
        parts = self.heights(heights).split([grid.size for grid in self.layout.grids], -1)
        return torch.stack([encoder(part) for encoder, part in zip(self.encoders, parts, strict=True)]).sum(0)

    def _moving(self, frames: Tensor) -> Tensor:
        """Action and state tokens in turn, `[B, 2 T, width]`."""
        x = self.frames(frames)
        action = torch.relu(self.action(x[..., self.last_action])) + self.age + self.role[0]
        rest = torch.cat([x[..., : self.last_action.start], x[..., self.last_action.stop :]], -1)
        state = torch.relu(self.state(rest)) + self.age + self.role[1]
        return torch.stack([action, state], 2).flatten(1, 2)

    def _read(self, tokens: Tensor, mask: Tensor, count: int) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens, mask)
        read = self.norm(tokens[:, -count:])
        with torch.autocast(read.device.type, enabled=False):  # actions keep their last digits in mixed precision
            return self.head(read.float())


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention `[B, heads, T, n]`. On a CPU always in float32: its bfloat16 backward pass takes ten times as long."""
    if query.device.type != "cpu" or query.dtype == torch.float32:
        return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask.to(query.dtype))
    with torch.autocast("cpu", enabled=False):
        seen = nn.functional.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=mask)
    return seen.to(query.dtype)


def _mask(steps: int, terrains: int, device: torch.device) -> Tensor:
    """What is added to attention scores, `[n, n]` for two tokens a step and the terrain of the last `terrains` steps:
    0 where a token may look, -inf elsewhere. Nothing but a terrain token itself looks at terrain."""
    moving, n = 2 * steps, 2 * steps + terrains
    row, column = torch.arange(n, device=device)[:, None], torch.arange(n, device=device)[None]
    step = steps - terrains + row - moving  # of a terrain token
    causal = (row < moving) & (column <= row)
    reading = (row >= moving) & ((column == row) | (column <= 2 * step + 1) & (column < moving))
    return torch.where(causal | reading, 0.0, float("-inf"))


class Straight(nn.Module):
    """The model as the graph of a bundle: one flat `observation` `[B, layout.size]` in, one `action` `[B, J + 1]` out.

    Bundles have this graph that were written before `Deployed` took its shortcuts.
    """

    def __init__(self, model: LocomotionTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, observation: Tensor) -> Tensor:
        return self.model.newest(*unpack(self.model.layout, observation))


class Deployed(Straight):
    """The same, as bundles have it now.

    Of a transformer it gives what `newest` gives, to rounding, with less to do: the last block is computed where its
    output is read alone, tokens stay in the order in which frames come, rows of all tokens are one matrix (a matrix
    product and its bias are then one operation), and both kinds of token, the normaliser and the scale of the attention
    are one matrix each. Those are made of the parameters in the graph itself: runtimes do it once, when they load it.
    """

    def __init__(self, model: LocomotionTransformer) -> None:
        super().__init__(model)
        context = model.config.context
        order = [2 * step + kind for step in reversed(range(context)) for kind in (0, 1)] + [2 * context]
        self.mask = _mask(context, 1, torch.device("cpu"))[order][:, order].contiguous()
        """Of tokens newest step first, the terrain at the end."""

    def forward(self, observation: Tensor) -> Tensor:
        model, config = self.model, self.model.config
        if config.kind == "mlp":
            return super().forward(observation)
        steps, width, mask = config.context, config.width, self.mask.to(observation.device)
        end = steps * model.layout.frame_size
        age = model.age.flip(0)
        place = torch.stack([age + model.role[0], age + model.role[1]], 1).view(2 * steps, width)
        frames = observation[:, :end].reshape(-1, model.layout.frame_size)
        moving = torch.relu(nn.functional.linear(frames, *self._moving())).view(-1, 2 * steps, width) + place
        terrain = model._terrain(observation[:, end:]) + (model.age[-1] + model.role[2])
        tokens = torch.cat([moving, terrain[:, None]], 1).view(-1, width)
        *before, last = (cast(Block, block) for block in model.blocks)
        for block in before:
            tokens = _whole(block, tokens, mask, self._width(tokens))
        return model.head(model.norm(_last(last, tokens, len(mask), self._width(tokens))))

    def _width(self, tokens: Tensor) -> int:
        """Of a token: a number, not what the graph is to find out in every call, and with it every matrix."""
        return self.model.config.width

    def _moving(self) -> tuple[Tensor, Tensor]:
        """Weight `[2 width, frame]` and bias of action and state tokens before their ReLU, for raw frames."""
        model, cut, size = self.model, self.model.last_action, self.model.layout.frame_size
        action = nn.functional.pad(model.action.weight, (cut.start, size - cut.stop))
        between = model.state.weight.new_zeros(len(model.state.weight), cut.stop - cut.start)
        state = torch.cat([model.state.weight[:, : cut.start], between, model.state.weight[:, cut.start :]], 1)
        weight = torch.cat([action, state]) / model.frames.std
        return weight, torch.cat([model.action.bias, model.state.bias]) - weight @ model.frames.mean


class Unfolded(Deployed):
    """The same, as bundles had it while their graph asked for the width of its tokens: their runtimes cut, scaled and
    joined the matrices anew in every call."""

    def _width(self, tokens: Tensor) -> int:
        return tokens.shape[1]


FORMS = (Deployed, Unfolded, Straight)
"""In which bundles have been written, today's first."""


def _whole(block: Block, x: Tensor, mask: Tensor, width: int) -> Tensor:
    """A block on rows `[B n, width]` of `n` tokens each."""
    tokens = len(mask)
    weight, bias = _scaled(block, width)
    split = nn.functional.linear(block.norm_1(x), weight, bias).view(-1, tokens, 3, block.heads, width // block.heads)
    query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
    seen = torch.softmax(query @ key.transpose(2, 3) + mask, -1) @ value
    x = x + block.output(seen.transpose(1, 2).reshape(-1, width))
    return x + block.feed(block.norm_2(x))


def _last(block: Block, x: Tensor, tokens: int, width: int) -> Tensor:
    """The last of so many tokens, which looks at all, after a block: `[B n, width]` to `[B, width]`."""
    heads = block.heads
    weight, bias = _scaled(block, width)
    normed = block.norm_1(x)
    split = nn.functional.linear(normed, weight[width:], bias[width:]).view(-1, tokens, 2, heads, width // heads)
    key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
    query = nn.functional.linear(normed.view(-1, tokens, width)[:, -1], weight[:width], bias[:width])
    seen = torch.softmax(query.view(-1, heads, 1, width // heads) @ key.transpose(2, 3), -1) @ value
    x = x.view(-1, tokens, width)[:, -1] + block.output(seen.reshape(-1, width))
    return x + block.feed(block.norm_2(x))


def _scaled(block: Block, width: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of queries, keys and values, of which queries have the attention's scale in them."""
    scale = (width // block.heads) ** -0.5
    weight, bias = block.inputs.weight, block.inputs.bias
    return torch.cat([scale * weight[:width], weight[width:]]), torch.cat([scale * bias[:width], bias[width:]])


def unpack(layout: Layout, observation: Tensor) -> tuple[Tensor, Tensor]:
    """Frames oldest first `[B, T, frame]` and heights `[B, n]` of flat observations `[B, layout.size]`."""
    end = len(layout.frames) * layout.frame_size
    frames = observation[:, :end].view(-1, len(layout.frames), layout.frame_size)
    return frames.flip(1), observation[:, end:]
