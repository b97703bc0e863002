"""What a layer that is trained with its quantization in place must hold: the loss that is trained is the one of use."""

from __future__ import annotations

import torch
from torch import Tensor

from quantsuite.bounds import bound_element, bound_matmul
from quantsuite.checks.outcome import CheckFailure, NotApplicable, compare, same
from quantsuite.checks.setting import Setting
from quantsuite.granularity import share_scales
from quantsuite.kernels.protocol import Product
from quantsuite.scheme import Operand, Scheme


def check_training_is_inference(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """In training the layer gives what it gives in inference, bit for bit, and gradients pass straight.

    Of ``y = Q(x) Q(w)^T`` and a gradient ``g`` of ``y`` those are ``g Q(w)`` and ``g^T Q(x)`` (the straight-through
    estimator, Bengio et al., 2013), which are products with one quantized operand and have their bound.  Elements
    that may be clipped, within twice the error of an element from their block's ends, may have a gradient of zero.
    """
    ask = getattr(kernel, "trainable", None)
    if ask is None:
        raise NotApplicable(f"{kernel.name} has no trainable, which says what of it is trained")
    setting = Setting(kernel, scheme, device, dtype, seed)
    m, n, k = setting.shape()
    x, weight = setting.pair(m, n, k)
    packed = setting.pack(weight)
    inferred = setting.multiply(x, packed, n)
    layer, given = ask(packed).train(), x.clone().requires_grad_()
    with torch.enable_grad():
        trained = layer(given)
    same("the output in training, beside that of inference", trained.detach(), inferred)
    gradient = setting.draw(m, n, offset=2)
    trained.backward(gradient)
    of_weight = [p.grad for p in layer.parameters() if p.grad is not None and p.shape == weight.shape]
    if given.grad is None or len(of_weight) != 1:
        raise CheckFailure(f"after backward() no {'activation' if given.grad is None else 'weight'} has a gradient")
    tightest = _straight("activations", given.grad, gradient, weight, scheme.weight, x, scheme.activation)
    return max(tightest, _straight("the weight", of_weight[0], gradient.T, x, scheme.activation, weight, scheme.weight))


def _straight(
    what: str, got: Tensor, g: Tensor, other: Tensor, quantized: Operand | None, own: Tensor, operand: Operand | None
) -> float:
    """Compare the gradient of ``own`` with ``g Q(other)``, but where it may be clipped."""
    exact = g.double().cpu() @ other.double().cpu()
    error = (
        torch.zeros_like(other.double().cpu()) if quantized is None else bound_element(other.double().cpu(), quantized)
    )
    bound = bound_matmul(g.cpu(), other.T.cpu(), None, None, dtype=got.dtype) + g.double().abs().cpu() @ error
    inside = _inside(own.double().cpu(), operand)
    return compare(f"the gradient of {what}", got.cpu().where(inside, exact.to(got.dtype)), exact, bound)


def _inside(tensor: Tensor, operand: Operand | None) -> Tensor:
    """Which elements are too far from the ends of their block to be clipped."""
    if operand is None:
        return torch.ones_like(tensor, dtype=torch.bool)
    view, shared = share_scales(tensor, operand.granularity)
    error = 2 * bound_element(tensor, operand).reshape(view.shape)
    low, high = view.amin(shared, keepdim=True), view.amax(shared, keepdim=True)
    if operand.symmetric:
        high = torch.maximum(high, -low)
        low = -high
    return ((view - error >= low) & (view + error <= high)).reshape(tensor.shape)
