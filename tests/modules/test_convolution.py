"""Filters over time: the gradients of a convolution, by another way."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from neuroint.modules.convolution import FilterOverTime, filter_frames, over_frames


def filters(dtype=torch.float64) -> tuple[FilterOverTime, nn.Conv2d]:
    """A filter, and the convolution that it is."""
    own, plain = FilterOverTime(3, 4, 5).to(dtype), nn.Conv2d(3, 4, (5, 1)).to(dtype)
    plain.load_state_dict(own.state_dict())
    return own, plain


def gradients(layer: nn.Conv2d, sheet: torch.Tensor) -> list[torch.Tensor]:
    out = layer(sheet)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out, *torch.autograd.grad((out * weights).sum(), [sheet, *layer.parameters()])]


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_output_and_gradients_are_those_of_a_convolution(memory):
    sheet = torch.randn(2, 3, 9, 7, dtype=torch.float64).contiguous(memory_format=memory).requires_grad_()
    for found, expected in zip(*(gradients(layer, sheet) for layer in filters()), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_gradients_can_be_differentiated_once_more():
    own, _ = filters()
    sheet = torch.randn(2, 3, 6, 2, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*own.named_parameters(), strict=True)
    call = lambda sheet, *given: functional_call(own, dict(zip(names, given, strict=True)), (sheet,))  # noqa: E731
    assert torch.autograd.gradcheck(call, (sheet, *parameters))
    assert torch.autograd.gradgradcheck(call, (sheet, *parameters))


def test_only_what_is_asked_for_gets_a_gradient():
    own, plain = filters()
    own.weight.requires_grad_(False)
    sheet = torch.randn(1, 3, 6, 2, dtype=torch.float64)
    own(sheet).sum().backward()
    plain(sheet).sum().backward()
    assert own.weight.grad is None
    torch.testing.assert_close(own.bias.grad, plain.bias.grad)


def test_under_autocast_it_is_a_convolution_in_the_lower_precision():
    own, plain = filters(torch.float32)
    sheet = torch.randn(1, 3, 6, 2)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = own(sheet), plain(sheet)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)


def test_constant_planes_need_not_be_made():
    layer = nn.Conv2d(3, 4, 3).double()
    pictures = torch.randn(2, 5, 1, 6, 7, dtype=torch.float64)
    behavior = torch.randn(2, 5, 2, dtype=torch.float64, requires_grad=True)
    planes = behavior[..., None, None].expand(2, 5, 2, 6, 7)
    found, expected = filter_frames(layer, pictures, behavior), over_frames(layer, torch.cat([pictures, planes], 2))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    weights = torch.randn(found.shape, dtype=torch.float64)
    asked = [behavior, *layer.parameters()]
    for one, other in zip(*(torch.autograd.grad((x * weights).sum(), asked) for x in (found, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert torch.equal(filter_frames(layer, torch.cat([pictures, planes], 2)), expected)
