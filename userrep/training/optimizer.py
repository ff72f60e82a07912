"""The optimizer: AdamW on gradients averaged over ranks, with clipping, warm-up and cosine decay.

Shapes: K blocks.
"""

import math

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from userrep import config
from userrep.errors import DivergedError
from userrep.training.launch.comm import Comm

WARM_UP_SHARE = 0.05


class Optimizer:
    """AdamW with the same steps on every rank. A step has one allreduce, of all gradients and losses in a flat tensor.

    ``num_steps``: steps of the whole training, for the learning rate. ``weight_K``: the weight of each block's loss.
    """

    def __init__(
        self, model: nn.Module, training: config.Training, num_steps: int, weight_K: Tensor, comm: Comm
    ) -> None:
        self._training, self._num_steps, self._weight_K, self._comm = training, num_steps, weight_K, comm
        self._parameters: list[Tensor] = list(model.parameters())
        self._means, self._squares = (
            {f"{kind}.{name}": torch.zeros_like(p, requires_grad=False) for name, p in model.named_parameters()}
            for kind in ("mean", "square")
        )
        self._updates = [torch.zeros((), device=p.device) for p in self._parameters]
        # Gradients are views of one flat tensor, so that averaging them needs no copy. The losses are at its end.
        self._flat = torch.zeros(sum(p.numel() for p in self._parameters) + len(weight_K), device=weight_K.device)
        start = 0
        for parameter in self._parameters:
            parameter.grad = self._flat[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
        self.taken = 0  # steps so far

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step: linear warm-up over the first 5% of all steps, then cosine decay to 0."""
        peak = self._training.learning_rate
        warm_up = max(1, round(WARM_UP_SHARE * self._num_steps))
        if self.taken < warm_up:
            return peak * (self.taken + 1) / warm_up
        done = (self.taken - warm_up) / max(1, self._num_steps - warm_up)
        return peak * 0.5 * (1 + math.cos(math.pi * done))

    def step(self, per_block_K: Tensor) -> Tensor:
        """Take one step on the weighted sum of the losses, and return the losses' means over all ranks.

        Gradients are averaged over ranks before they are clipped.

        Raises
        ------
        DivergedError
            On all ranks, which see the same mean, if the loss or the gradient is not finite.
        """
        self._flat.zero_()
        (per_block_K @ self._weight_K).backward()  # type: ignore[no-untyped-call]
        self._flat[-len(per_block_K) :] = per_block_K.detach()
        self._comm.mean_(self._flat)
        gradient, losses_K = self._flat[: -len(per_block_K)], self._flat[-len(per_block_K) :].clone()
        norm, loss = gradient.norm().item(), (losses_K @ self._weight_K).item()
        if not math.isfinite(loss + norm):
            raise DivergedError(
                f"training: at step {self.taken + 1} of {self._num_steps} (learning rate {self.learning_rate:.2g}) "
                f"the loss is {loss:.4g} and the gradient's norm {norm:.4g}. "
                "Lower training.learning_rate, and look for rows that are not finite."
            )
        if norm > self._training.clip_norm:
            gradient.mul_(self._training.clip_norm / norm)
        self._adamw()
        self.taken += 1
        return losses_K

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that ``restore`` needs. They are not copies."""
        return self._means | self._squares

    def restore(self, tensors: dict[str, Tensor], taken: int) -> None:
        """Restore the tensors that ``state`` returned after ``taken`` steps."""
        for name, tensor in self.state().items():
            tensor.copy_(tensors[name])
        for count in self._updates:
            count.fill_(taken)
        self.taken = taken

    @torch.no_grad()
    def _adamw(self) -> None:
        """Update the parameters with torch's functional AdamW.

        ``torch.optim.AdamW`` would import torch's compiler, which takes seconds in every rank.
        """
        adamw(
            self._parameters,
            [p.grad for p in self._parameters if p.grad is not None],
            list(self._means.values()),
            list(self._squares.values()),
            [],
            self._updates,
            fused=True,
            amsgrad=False,
            maximize=False,
            beta1=0.9,
            beta2=0.999,
            eps=1e-8,
            lr=self.learning_rate,
            weight_decay=self._training.weight_decay,
        )
