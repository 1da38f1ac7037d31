"""Adam on one vector of parameters."""

from __future__ import annotations

import torch
from torch import Tensor


class Adam:
    """Adam (Kingma & Ba, arXiv:1412.6980) with PyTorch's fused kernel and default settings.

    The same kernel and bits as ``torch.optim.Adam(fused=True)``, whose first use imports
    torch._dynamo: seconds, in which a short training would be done.

    Args:
        parameters: (n,), with its gradient in ``parameters.grad``.
        beta2: decay of the running mean of the square. After n > 1 / (1 - beta2) steps a gradient
            that grows faster than this mean moves a parameter by up to (1 - BETA1) / √(1 - beta2)
            learning rates: 3.2 with Adam's usual 0.999, 1 with 0.99.

    Attributes:
        average, average_square: (n,), running means of the gradient and of its square.
        steps: (), steps done.
    """

    BETA1, EPSILON = 0.9, 1e-8
    STATE = ("average", "average_square", "steps")

    def __init__(self, parameters: Tensor, beta2: float = 0.999):
        self.parameters, self.beta2 = parameters, beta2
        self.average = torch.zeros_like(parameters, requires_grad=False)
        self.average_square = torch.zeros_like(parameters, requires_grad=False)
        self.steps = torch.zeros((), device=parameters.device)

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One step along the gradient."""
        gradient = self.parameters.grad
        assert gradient is not None
        self.steps += 1
        torch._fused_adam_(
            [self.parameters],
            [gradient],
            [self.average],
            [self.average_square],
            [],
            [self.steps],
            lr=learning_rate,
            beta1=self.BETA1,
            beta2=self.beta2,
            weight_decay=0.0,
            eps=self.EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {name: getattr(self, name) for name in self.STATE}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint; KeyError where it is of another kind."""
        for name in self.STATE:
            getattr(self, name).copy_(state[name])
