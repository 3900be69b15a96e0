"""NDT and STNDT: their equations, counts of parameters, windows, maps, and what is dead in the published one."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from neuroint.data.base import Inputs
from neuroint.modules.readout.linear import Linear
from neuroint.modules.transformer import Attention, context_window, in_windows, scale_by_depth, sinusoids
from neuroint.registry import MissingFactError, cores

SMALL = {"frames": 8, "layers": 2, "heads": 2, "hidden": 6}
NO_DROPOUT = {"dropout": 0.0, "dropout_rates": 0.0, "dropout_embedding": 0.0}
HELD_IN, NEURONS = 4, 6


def build(name, n_neurons=NEURONS, observed=HELD_IN, **options):
    torch.manual_seed(0)
    facts = {"observed_channels": observed, "n_neurons": n_neurons, "bin_s": 0.02}
    return cores[name].build({**SMALL, **options} if name != "smoothed" else options, facts).double().eval()


def counts(time=8, batch=3, seed=0, channels=HELD_IN):
    draw = torch.Generator().manual_seed(seed)
    return Inputs(observed=torch.poisson(torch.full((batch, time, channels), 0.8, dtype=torch.float64), draw))


# --- parameters


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_stndt_has_the_published_number_of_parameters_at_the_size_of_mc_maze():
    published = {"frames": 180, "layers": 4, "heads": 2, "hidden": 128}
    core = build("stndt", 182, 137, **published)
    readout = Linear(feature_shape=core.feature_shape, n_neurons=182, mean_drive=np.zeros(182))
    assert parameters(core) + parameters(readout) == 1_536_212
    assert parameters(core.layers[0]) == 359_164
    values = [
        p.numel() for name, p in core.layers[0].named_parameters() if "space.value" in name or "space.out" in name
    ]
    assert sum(values) == 65_160


@pytest.mark.parametrize("frames", [8, 12])
def test_the_spatial_choice_has_matched_parameters(frames):
    on, off = (build("stndt_fixed", frames=frames, spatial=spatial) for spatial in (True, False))
    assert parameters(on) == parameters(off)


def test_dead_parameters_change_nothing_and_the_others_do():
    core, given = build("stndt"), counts()
    out = core(given)
    for name, parameter in core.named_parameters():
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)).to(parameter)
        moved = (core(given) - out).abs().max().item()
        assert (moved < 1e-12) == (name in core.dead_parameters), (name, moved)
        with torch.no_grad():
            parameter.copy_(kept)


def test_dead_parameters_get_a_gradient_of_zero_and_not_none():
    core = build("stndt")
    core(counts()).square().sum().backward()
    grads = dict(core.named_parameters())
    assert all(grads[name].grad is not None and grads[name].grad.abs().max() < 1e-9 for name in core.dead_parameters)
    assert all(parameter.grad is not None for parameter in core.parameters())


# --- equations, against plain layers of torch


def norm(x, layer):
    return functional.layer_norm(x, layer.normalized_shape, layer.weight, layer.bias)


def plain_attention(part, x, allowed=None):
    """The same weights in torch's own multi-head attention: output and averaged maps."""
    peer = nn.MultiheadAttention(x.shape[-1], part.heads, batch_first=True).double()
    zeros = torch.zeros(x.shape[-1], dtype=x.dtype)
    maps = (part.query, part.key, part.value)
    biases = torch.cat([zeros if m.bias is None else m.bias for m in maps])
    peer.in_proj_weight, peer.in_proj_bias = nn.Parameter(torch.cat([m.weight for m in maps])), nn.Parameter(biases)
    peer.out_proj.weight = part.out.weight
    peer.out_proj.bias = nn.Parameter(zeros) if part.out.bias is None else part.out.bias
    return peer(x, x, x, attn_mask=None if allowed is None else ~allowed)


def plain_feed(part, x):
    return torch.relu(x @ part.linear1.weight.T + part.linear1.bias) @ part.linear2.weight.T + part.linear2.bias


def plain_temporal(layer, x, allowed=None):
    x = x + plain_attention(layer.time, norm(x, layer.norm_time), allowed)[0]
    return x + plain_feed(layer.feed, norm(x, layer.norm_feed))


def whole(given):
    return functional.pad(given.observed, (0, NEURONS - HELD_IN))


@pytest.mark.parametrize("options", [{"positions": "sinusoidal"}, {"embedding": "linear", "context_back": 2}])
def test_ndt_equals_plain_layers(options):
    core, given = build("ndt", **options), counts()
    x = core.embed(whole(given)) * math.sqrt(NEURONS) + core.places
    allowed = None
    if "context_back" in options:
        lag = torch.arange(8)[:, None] - torch.arange(8)
        allowed = lag <= 2
    for layer in core.layers:
        x = plain_temporal(layer, x, allowed)
    torch.testing.assert_close(core(given)[..., 0, 0], norm(x, core.norm), rtol=1e-6, atol=1e-6)


def spatial_start(core, given):
    x = whole(given)
    over_time = (x @ core.embed_time.weight.T + core.embed_time.bias) * math.sqrt(NEURONS) + core.places_time
    turned = x.transpose(1, 2)
    return over_time, (turned @ core.embed_space.weight.T + core.embed_space.bias) * math.sqrt(8) + core.places_space


def test_published_stndt_equals_plain_layers():
    core, given = build("stndt"), counts()
    x, s = spatial_start(core, given)
    for k, layer in enumerate(core.layers):
        x = plain_temporal(layer.temporal, x)
        _, maps = plain_attention(layer.space, norm(x.transpose(1, 2) if k else s, layer.norm_space))
        x = x + (maps @ norm(x, layer.norm_values).transpose(1, 2)).transpose(1, 2)
        x = x + plain_feed(layer.feed, norm(x, layer.norm_feed))
    torch.testing.assert_close(core(given)[..., 0, 0], norm(x, core.norm), rtol=1e-6, atol=1e-6)


def test_fixed_stndt_equals_plain_layers_and_its_maps_are_those_of_torch():
    core, given = build("stndt_fixed"), counts()
    x, s = spatial_start(core, given)
    expected = []
    for k, layer in enumerate(core.layers):
        x = plain_temporal(layer.temporal, x)
        read, maps = plain_attention(layer.space, norm(x.transpose(1, 2) if k else s, layer.norm_space))
        expected.append(maps)
        x = x + read.transpose(1, 2)
        x = x + plain_feed(layer.feed, norm(x, layer.norm_feed))
    torch.testing.assert_close(core(given)[..., 0, 0], norm(x, core.norm), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(core.spatial_maps(given), torch.stack(expected), rtol=1e-6, atol=1e-6)


# --- who reads whom


def spread(core, neuron, bin_):
    """Whether each feature moves with one count; the final norms hide nothing from it."""
    given, other = counts(), counts()
    other.observed[:, bin_, neuron] += 1
    return (core(given) - core(other))[..., 0, 0].abs().amax(0) > 1e-9


def test_a_context_window_bounds_how_far_a_bin_looks():
    moved = spread(build("ndt", layers=1, context_back=2, context_forward=1, frames=8), 0, 4).any(1)
    assert moved.tolist() == [False, False, False, True, True, True, True, False]


def test_the_window_of_two_sides_is_what_was_asked_for():
    assert context_window(3, None, None) is None
    assert context_window(3, 0, 1).tolist() == [[True, True, False], [False, True, True], [False, False, True]]
    assert context_window(3, 1, None).tolist() == [[True, True, True], [True, True, True], [False, True, True]]


@pytest.mark.parametrize("name", ["stndt", "stndt_fixed"])
def test_maps_are_of_all_layers_and_rows_sum_to_one(name):
    maps = build(name).spatial_maps(counts())
    assert maps.shape == (2, 3, NEURONS, NEURONS)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 3, NEURONS, dtype=torch.float64))


def test_without_spatial_attention_everyone_reads_itself():
    maps = build("stndt_fixed", spatial=False).spatial_maps(counts())
    assert torch.equal(maps, torch.eye(NEURONS, dtype=torch.float64).expand(2, 3, -1, -1))


def test_held_out_neurons_enter_as_zeros():
    core, given = build("stndt_fixed"), counts()
    shown = Inputs(observed=whole(given))
    everyone = build("stndt_fixed", observed=NEURONS)
    everyone.load_state_dict(core.state_dict())
    torch.testing.assert_close(core(given), everyone(shown))


# --- windows and lengths


@pytest.mark.parametrize("name", ["ndt", "stndt", "stndt_fixed"])
@pytest.mark.parametrize("time", [1, 5, 8, 9, 16, 21])
def test_a_clip_of_any_length_is_read_in_stretches(name, time):
    core, given = build(name), counts(time)
    out = core(given)
    assert out.shape == (3, time, NEURONS, 1, 1)
    if time > 8:
        last = core(Inputs(observed=given.observed[:, -8:]))
        kept = (time - 1) % 8 + 1
        torch.testing.assert_close(out[:, -kept:], last[:, -kept:])
        torch.testing.assert_close(out[:, :8], core(Inputs(observed=given.observed[:, :8])))


def test_every_bin_comes_back_once_and_in_order():
    for time in range(1, 40):
        x = torch.arange(2 * time, dtype=torch.float64).reshape(2, time, 1)
        assert torch.equal(in_windows(lambda y: y, x, 7), x)


# --- parts


def test_positions_are_sines_and_cosines_of_growing_wavelength():
    found = sinusoids(50, 5)
    assert found.shape == (50, 5)
    torch.testing.assert_close(found[:, 0], torch.arange(50.0).sin())
    torch.testing.assert_close(found[:, 3], (torch.arange(50.0) * 10_000 ** (-2 / 5)).cos())


def test_depth_scales_output_weights_only():
    part = nn.ModuleDict({"space": Attention(4, 2, 0.0), "norm": nn.LayerNorm(4)})
    before = {name: parameter.clone() for name, parameter in part.named_parameters()}
    scale_by_depth(part, 16)
    for name, parameter in part.named_parameters():
        factor = 0.67 / 2 if name == "space.out.weight" else 1.0
        torch.testing.assert_close(parameter, before[name] * factor)


def test_smoothing_keeps_the_sum_of_a_spike_and_is_in_tens_of_hz():
    core = build("smoothed", observed=1, sd_s=0.04)
    spike = torch.zeros(1, 41, 1, dtype=torch.float64)
    spike[0, 20] = 1
    out = core(Inputs(observed=spike))[0, :, 0, 0, 0]
    assert out.sum().item() * 0.02 * 10 == pytest.approx(1, abs=1e-6)
    assert (out[20] / out[22]).item() == pytest.approx(math.exp(0.5), rel=1e-5), "2 bins are one standard deviation"
    torch.testing.assert_close(out, out.flip(0))


def test_latents_are_mixtures_of_smoothed_channels():
    core = build("smoothed", latents=2)
    smooth = build("smoothed")
    torch.testing.assert_close(core(counts())[..., 0, 0], smooth(counts())[..., 0, 0] @ core.mix.weight.T)


# --- faults


@pytest.mark.parametrize("name", ["ndt", "stndt", "stndt_fixed", "smoothed"])
def test_without_recorded_activity_they_say_what_to_set(name):
    with pytest.raises(MissingFactError, match=rf"core '{name}' reads recorded activity.* set data.observed: masked"):
        build(name, observed=0)


@pytest.mark.parametrize("name", ["ndt", "stndt", "stndt_fixed"])
def test_more_observed_than_predicted_neurons_are_refused(name):
    with pytest.raises(ValueError, match=r"of which there are 6, and cannot read 7 observed ones; set data.observed"):
        build(name, observed=7)


def test_heads_must_divide_neurons_and_bins():
    with pytest.raises(ValueError, match="4 heads do not divide tokens of width 6; choose a divisor"):
        build("ndt", heads=4)
    with pytest.raises(ValueError, match="2 heads do not divide tokens of width 9; choose a divisor"):
        build("stndt", frames=9)


def test_a_batch_without_records_is_refused():
    with pytest.raises(ValueError, match=r"was given none; set data.observed: masked"):
        build("ndt")(Inputs(behavior=torch.zeros(1, 3, 2)))
