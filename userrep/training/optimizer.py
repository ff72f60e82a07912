"""One optimiser step from gradients that are averaged over ranks: AdamW, warm-up, cosine, clipping."""

import math

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from userrep import config
from userrep.errors import DivergedError
from userrep.training.comm import Comm

WARM_UP_SHARE = 0.05


class Optimizer:
    """Steps that are the same on every rank: one allreduce over all gradients and the loss, as one flat tensor.

    The learning rate is not scaled with the number of ranks: the global batch is fixed, so more ranks take the same
    steps in parts, not larger ones.
    """

    def __init__(self, model: nn.Module, training: config.Training, num_steps: int, comm: Comm) -> None:
        parameters = list(model.parameters())
        self._training, self._num_steps, self._comm = training, num_steps, comm
        self._parameters = parameters
        self._means = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self._squares = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self._counts = [torch.zeros((), device=p.device) for p in parameters]
        # Gradients are views into one flat tensor, so that averaging them needs no copy; the loss rides at its end.
        self._flat = torch.zeros(sum(p.numel() for p in parameters) + 1, device=parameters[0].device)
        start = 0
        for parameter in parameters:
            parameter.grad = self._flat[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
        self._taken = 0

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step: up over the first 5 % of all steps, then a half cosine down to 0."""
        warm_up = max(1, round(WARM_UP_SHARE * self._num_steps))
        if self._taken < warm_up:
            return self._training.learning_rate * (self._taken + 1) / warm_up
        done = (self._taken - warm_up) / max(1, self._num_steps - warm_up)
        return self._training.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def step(self, loss: Tensor) -> float:
        """Average gradients and loss over ranks, clip, step; return the mean loss.

        Raises
        ------
        DivergedError
            If loss or gradient is not finite: on all ranks, since all see the same mean.
        """
        self._flat.zero_()
        loss.backward()  # type: ignore[no-untyped-call]
        self._flat[-1] = loss.detach()
        self._comm.mean_(self._flat)
        gradient, mean_loss = self._flat[:-1], self._flat[-1].item()
        norm = gradient.norm().item()
        if not math.isfinite(mean_loss + norm):
            raise DivergedError(
                f"training: at step {self._taken + 1} of {self._num_steps} (learning rate {self.learning_rate:.2g}) "
                f"the loss is {mean_loss:.4g} and the gradient's norm {norm:.4g}: "
                "set training.learning_rate lower, and look for rows that are not finite."
            )
        if norm > self._training.clip_norm:
            gradient.mul_(self._training.clip_norm / norm)
        self._adamw()
        self._taken += 1
        return mean_loss

    @torch.no_grad()
    def _adamw(self) -> None:
        """Update by torch's own kernel. The class around it imports torch's compiler, seconds in every rank."""
        adamw(
            list(self._parameters),
            [p.grad for p in self._parameters if p.grad is not None],
            self._means,
            self._squares,
            [],
            self._counts,
            fused=True,
            amsgrad=False,
            maximize=False,
            beta1=0.9,
            beta2=0.999,
            eps=1e-8,
            lr=self.learning_rate,
            weight_decay=self._training.weight_decay,
        )
