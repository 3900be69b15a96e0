"""Work over frames in slices: the same numbers and gradients, and nothing kept between."""

import pytest
import torch

from neuroint.modules import chunks
from neuroint.modules.chunks import over_frames


def mix(frames, weight, offset):
    return torch.tanh(frames @ weight) * offset


def tensors():
    generator = torch.Generator().manual_seed(0)
    shapes = (7, 5), (5, 3), (3,)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_slices_of_frames_give_the_same_results_and_gradients(rows, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", {"cpu": 10 * rows})
    frames, *held = tensors()
    out = over_frames(mix, 10, frames, held)
    torch.testing.assert_close(out, mix(frames, *held), rtol=0, atol=1e-15)
    found = torch.autograd.grad((out**2).sum(), [frames, *held])
    for one, other in zip(found, torch.autograd.grad((mix(frames, *held) ** 2).sum(), [frames, *held]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)


def test_only_what_needs_a_gradient_gets_one(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", {"cpu": 20})
    frames, weight, offset = tensors()
    over_frames(mix, 10, frames.detach(), (weight, offset.detach())).sum().backward()
    assert weight.grad.abs().min() > 0
    assert frames.grad is None
    assert offset.grad is None


def test_slices_keep_their_inputs_alone(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", {"cpu": 10})
    frames, *held = tensors()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        over_frames(mix, 10, frames, held)
    assert sum(kept) == 7 * 5 + 5 * 3 + 3


def test_a_lower_precision_is_that_of_the_forward_pass(monkeypatch):
    frames, *held = (x.detach().float().requires_grad_() for x in tensors())
    grads = []
    for size in (10, 1000):
        monkeypatch.setattr(chunks, "CHUNK", {"cpu": size})
        with torch.autocast("cpu", torch.bfloat16):
            out = over_frames(mix, 10, frames, held)
        grads.append(torch.autograd.grad(out.float().sum(), held))  # outside of autocast, as in training
    for sliced, whole in zip(*grads, strict=True):
        torch.testing.assert_close(sliced, whole, rtol=2e-2, atol=2e-2)  # sums of bfloat16
        assert not torch.equal(sliced, torch.zeros_like(sliced))


def test_a_cast_made_in_slices_is_not_reused_where_gradients_are_needed(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", {"cpu": 10})
    frames, weight, offset = (x.detach().float().requires_grad_() for x in tensors())
    with torch.autocast("cpu", torch.bfloat16):
        over_frames(mix, 10, frames, (weight, offset))
        later = frames @ weight
    (grad,) = torch.autograd.grad(later.float().sum(), weight)
    assert grad.abs().max() > 0
