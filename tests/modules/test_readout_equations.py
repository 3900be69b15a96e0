"""Readouts against grid_sample and plain products, and what they refuse."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from neuroint.config import Spec
from neuroint.data.base import Facts, Inputs
from neuroint.fit import WEIGHTS_FILE, _average, load_finished, load_weights
from neuroint.model import build_model
from neuroint.modules import chunks
from neuroint.modules.bilinear import weighed_at
from neuroint.modules.chunks import in_chunks
from neuroint.modules.readout.factorized import Factorized
from neuroint.modules.readout.gaussian import Gaussian
from neuroint.modules.readout.linear import Linear
from neuroint.registry import MissingFactError, readouts

FACTS = {"feature_shape": (6, 5, 7), "n_neurons": 9, "mean_drive": np.linspace(-1, 1, 9, dtype=np.float32)}
POSITIONS = np.random.default_rng(0).uniform(0, 500, (9, 3)).astype(np.float32)


def by_grid_sample(features, grid, weights):
    taken = functional.grid_sample(features, grid[:, :, None], align_corners=True, padding_mode="zeros")[..., 0]
    return torch.einsum("fcn,nc->fn", taken, weights)


def case(dtype, frames=11, neurons=400, reach=1.3):
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(frames, 6, 5, 7, generator=generator, dtype=dtype)
    grid = (2 * torch.rand(frames, neurons, 2, generator=generator, dtype=dtype) - 1) * reach
    weights = torch.randn(neurons, 6, generator=generator, dtype=dtype)
    return [tensor.requires_grad_() for tensor in (features, grid, weights)]


def outputs_and_gradients(function, tensors):
    out = function(*tensors)
    out_weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(4), dtype=out.dtype)
    return [out.detach(), *torch.autograd.grad((out * out_weights).sum(), tensors)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 2e-7)])
def test_the_gather_equals_grid_sample_in_outputs_and_all_gradients(dtype, tolerance):
    tensors = case(dtype)
    ours, theirs = (outputs_and_gradients(function, tensors) for function in (weighed_at, by_grid_sample))
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() <= tolerance * other.abs().max()


@pytest.mark.parametrize("rows", [1, 4, 11, 100])
def test_chunks_of_frames_change_nothing(rows, monkeypatch):
    tensors = case(torch.float64, neurons=20)
    whole = outputs_and_gradients(by_grid_sample, tensors)
    monkeypatch.setitem(chunks.CHUNK, "cpu", rows * 20 * 6)
    for one, other in zip(outputs_and_gradients(weighed_at, tensors), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(weighed_at(*tensors), whole[0], rtol=1e-12, atol=1e-12)


def test_what_a_chunk_computes_is_not_kept(monkeypatch):
    monkeypatch.setitem(chunks.CHUNK, "cpu", 10)
    x = torch.ones(8, 10, requires_grad=True)

    def kept(run):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.numel()) or tensor, lambda t: t
        ):
            run()
        return sum(sizes)

    def middle(rows):
        return (rows.exp() * rows.sin()).sum(1, keepdim=True)

    assert kept(lambda: in_chunks(middle, 10, x)) == x.numel(), "more than the slices themselves is held"
    assert kept(lambda: middle(x)) > 2 * x.numel()


def test_points_at_corners_and_single_pixels_read_the_pixels_there():
    features = torch.arange(12.0).view(1, 1, 3, 4)
    corners = torch.tensor([[[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]])
    found = weighed_at(features, corners, torch.ones(5, 1))
    assert found.tolist() == [[0.0, 3.0, 8.0, 11.0, 5.5]]
    single = torch.full((1, 1, 1, 1), 7.0)
    assert weighed_at(single, corners, torch.ones(5, 1)).tolist() == [[7.0] * 5]


def test_points_outside_read_zero():
    features = torch.ones(1, 1, 3, 3)
    grid = torch.tensor([[[2.5, 0.0], [1.5, 0.0]]])  # beyond the border pixel, and half a pixel beyond it
    assert weighed_at(features, grid, torch.ones(2, 1)).tolist() == [[0.0, 0.5]]


def test_the_gaussian_readout_has_the_baseline_s_parameters():
    readout = Gaussian(
        feature_shape=(128, 18, 46),
        n_neurons=8000,
        mean_drive=np.zeros(8000, np.float32),
        positions_um=np.random.default_rng(0).uniform(0, 600, (8000, 3)).astype(np.float32),
        pupil_channels=2,
    )
    shifter = sum(parameter.numel() for parameter in readout.shifter.parameters())
    assert shifter == 57
    assert sum(parameter.numel() for parameter in readout.parameters()) - shifter == 1_064_152


def test_points_predicted_from_positions_follow_the_formula():
    readout = Gaussian(**FACTS, positions_um=POSITIONS).eval()
    plane = POSITIONS[:, :2] - POSITIONS[:, :2].mean(0)
    plane = torch.tensor(plane / np.abs(plane).max())
    first, second = readout.grid.predict[0], readout.grid.predict[2]
    expected = torch.tanh(functional.elu(plane @ first.weight.T + first.bias) @ second.weight.T + second.bias)
    torch.testing.assert_close(readout.grid(None), expected)
    assert plane.abs().max() == 1


def test_evaluation_reads_at_the_mean_point_plus_the_shift():
    readout = Gaussian(**FACTS, grid="free", pupil_channels=2).double().eval()
    features, pupil = torch.randn(2, 3, 6, 5, 7, dtype=torch.float64), torch.randn(2, 3, 2, dtype=torch.float64)
    grid = readout.grid.points[None, None] + readout.shifter(pupil)[:, :, None]
    expected = by_grid_sample(features.flatten(0, 1), grid.flatten(0, 1), readout.weights).view(2, 3, 9) + readout.bias
    torch.testing.assert_close(readout(features, pupil), expected)


def test_the_last_frames_of_a_longer_pupil_trace_belong_to_the_features():
    readout = Gaussian(**FACTS, grid="free", pupil_channels=2).eval()
    features, pupil = torch.randn(2, 3, 6, 5, 7), torch.randn(2, 8, 2)
    assert torch.equal(readout(features, pupil), readout(features, pupil[:, 5:]))


def test_training_draws_points_with_the_covariance_of_sigma():
    readout = Gaussian(**(FACTS | {"n_neurons": 2, "mean_drive": np.zeros(2, np.float32)}), grid="free").train()
    with torch.no_grad():
        readout.grid.points.copy_(torch.tensor([[0.1, -0.1], [0.0, 0.9]]))
        readout.sigma.copy_(torch.tensor([[[0.1, 0.0], [0.05, 0.02]], [[0.0, 0.0], [0.0, 0.5]]]))
    points = readout._points(200_000, None)
    torch.testing.assert_close(points[:, 0].mean(0), torch.tensor([0.1, -0.1]), atol=2e-3, rtol=0)
    expected = readout.sigma[0] @ readout.sigma[0].T
    torch.testing.assert_close(torch.cov(points[:, 0].T), expected, atol=2e-4, rtol=0)
    assert points.max() == 1, "a draw beyond the edge is brought back to it"
    assert points[:, 1, 0].unique().tolist() == [0.0]


def test_training_draws_anew_for_every_frame_and_neuron():
    points = Gaussian(**FACTS, grid="free").train()._points(5, None)
    offsets = (points - Gaussian(**FACTS, grid="free").grid(None)[None]).flatten(0, 1)
    assert len(offsets.unique(dim=0)) == 5 * 9


def test_without_sampling_there_is_no_sigma_and_training_equals_evaluation():
    readout = Gaussian(**FACTS, grid="free", sampling=False)
    features = torch.randn(1, 2, 6, 5, 7)
    assert "sigma" not in dict(readout.named_parameters())
    assert torch.equal(readout.train()(features), readout.eval()(features))


def test_a_shifter_is_built_only_where_the_pupil_was_recorded():
    assert Gaussian(**FACTS, grid="free").shifter is None
    assert Gaussian(**FACTS, grid="free", pupil_channels=2, shifter=False).shifter is None


def test_a_missing_pupil_is_refused():
    readout = Gaussian(**FACTS, grid="free", pupil_channels=2)
    with pytest.raises(ValueError, match="built with a shifter, and no pupil was given; set shifter: false"):
        readout(torch.zeros(1, 1, 6, 5, 7))


def test_missing_positions_are_refused_with_a_way_out():
    with pytest.raises(MissingFactError, match=r"needs positions_um, which the data does not have.*choose grid: free"):
        readouts["gaussian"].build({}, FACTS)


def two_sessions(ids=None, **options):
    """Neurons 1 and 2 of the first session are 4 and 1 of the second; its neuron 0 is matched with none."""
    specs = {
        "core": Spec("conv2d", {"channels": [6], "spatial_kernels": [3]}),
        "readout": Spec("gaussian", {"grid": "free", "features": "shared", **options}),
        "normalization": Spec("none"),
        "interaction": Spec("none"),
        "link": Spec("softplus"),
    }
    ids = ids or {"one": [7, 3, 9], "two": [-1, 9, 8, 8, 3]}
    facts = {
        name: Facts(len(own), (1, 8, 8), np.ones(len(own), np.float32), 5, match_ids=np.array(own))
        for name, own in ids.items()
    }
    return build_model(specs, facts)


def test_matched_neurons_of_two_sessions_read_the_same_features_up_to_a_scale():
    model = two_sessions()
    one, two = model.readouts["one"], model.readouts["two"]
    with torch.no_grad():
        one.weights.normal_()
        two.scale.copy_(torch.arange(1.0, 6.0)[:, None])
    assert one.weights is two.weights
    assert len(one.weights) == 5, "ids 3, 7, 8 and 9, and a neuron that is matched with none"
    torch.testing.assert_close(two.embedding()[4], 5 * one.embedding()[1])
    torch.testing.assert_close(two.embedding()[1], 2 * one.embedding()[2])
    torch.testing.assert_close(two.embedding()[3] / 4, two.embedding()[2] / 3)
    assert sum(parameter is one.weights for parameter in model.parameters()) == 1


def test_what_one_session_learns_of_a_matched_neuron_the_other_knows():
    model = two_sessions()
    inputs = Inputs(torch.randn(1, 5, 1, 8, 8))
    before = model.eval()(inputs, "two").detach()
    model(inputs, "one")[..., 1].sum().backward()  # the neuron with id 3
    with torch.no_grad():
        model.readouts["one"].weights -= model.readouts["one"].weights.grad
    changed = (model(inputs, "two") - before).abs().amax((0, 1)) > 0
    assert changed.tolist() == [False, False, False, False, True]


def test_a_row_that_several_sessions_share_is_penalized_once():
    model = two_sessions(feature_l1=0.5)
    torch.testing.assert_close(model.penalty(), torch.tensor(0.5 * 5 * 6 / 6))


@pytest.mark.parametrize("decay", [0.9, 0.9999])
def test_averages_of_weights_keep_whose_row_is_whose(decay):
    model = two_sessions()
    averaged = _average(model, decay)
    for _ in range(60):
        averaged.update_parameters(model)
    for name, buffer in model.named_buffers():
        assert torch.equal(averaged.module.get_buffer(name), buffer), name


def saved(model, folder):
    weights = {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, str(folder / WEIGHTS_FILE))
    return folder


def test_a_run_on_other_matched_neurons_gives_a_model_none_of_what_they_share(tmp_path):
    model = two_sessions()
    with torch.no_grad():
        model.readouts["one"].weights.fill_(7)
        model.readouts["one"].scale.fill_(7)
    other = two_sessions({"one": [7, 3, 9], "three": [-1, 9, 4, 4, 3]})
    assert other.readouts["one"].weights.shape == model.readouts["one"].weights.shape
    load_weights(other, saved(model, tmp_path))
    assert not (other.readouts["one"].embedding() == 49).any()
    torch.testing.assert_close(other.readouts["one"].embedding(), torch.full((3, 6), 1 / 6))
    alike = two_sessions()
    load_weights(alike, tmp_path)
    assert (alike.readouts["one"].embedding() == 49).all()


def test_a_run_is_not_scored_with_neurons_that_were_matched_otherwise(tmp_path):
    saved(two_sessions(), tmp_path)
    other = two_sessions({"one": [7, 9, 3], "two": [-1, 9, 8, 8, 3]})
    with pytest.raises(ValueError, match=r"holds readouts.one.match_ids of other matched neurons"):
        load_finished(other, tmp_path / WEIGHTS_FILE)


def test_weights_of_matched_neurons_are_kept_and_loaded_together():
    model, other = two_sessions(), two_sessions()
    with torch.no_grad():
        model.readouts["two"].weights.normal_()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.readouts["one"].weights, model.readouts["one"].weights)
    assert other.readouts["one"].weights is other.readouts["two"].weights


def test_shared_features_without_ids_are_refused_with_a_way_out():
    with pytest.raises(MissingFactError, match=r"features: shared needs match_ids of every.*choose features: own"):
        readouts["gaussian"].build({"grid": "free", "features": "shared"}, FACTS)


def test_feature_l1_is_the_sum_of_absolute_weights():
    readout = Gaussian(**FACTS, grid="free", feature_l1=0.5)
    torch.testing.assert_close(readout.penalty(), torch.tensor(0.5 * 9 * 6 / 6))


def test_half_precision_autocast_leaves_points_and_products_in_single_precision():
    readout = Gaussian(**FACTS, grid="free").eval()
    features = torch.randn(1, 2, 6, 5, 7)
    with torch.autocast("cpu", torch.bfloat16):
        drive = readout(features.bfloat16())
    assert drive.dtype == torch.float32
    torch.testing.assert_close(drive, readout(features.bfloat16().float()))


def test_factorized_equals_the_sum_written_out(monkeypatch):
    readout = Factorized(**FACTS, rank=2).double()
    features = torch.randn(2, 3, 6, 5, 7, dtype=torch.float64)
    expected = torch.einsum("btchw,nrhw,nrc->btn", features, readout.mask, readout.weights) + readout.bias
    torch.testing.assert_close(readout(features), expected)
    monkeypatch.setitem(chunks.CHUNK, "cpu", 9 * 2 * 6)
    torch.testing.assert_close(readout(features), expected)


def test_factorized_of_full_rank_can_be_any_linear_readout():
    full = Linear(**FACTS).double()
    low = Factorized(**FACTS, rank=6).double()
    with torch.no_grad():
        low.mask.copy_(full.weights)
        low.weights.copy_(torch.eye(6).expand(9, 6, 6))
    features = torch.randn(2, 3, 6, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(low(features), full(features))


def test_linear_equals_the_sum_written_out_and_embeds_by_channel():
    readout = Linear(**FACTS).double()
    features = torch.randn(2, 3, 6, 5, 7, dtype=torch.float64)
    expected = torch.einsum("btchw,nchw->btn", features, readout.weights) + readout.bias
    torch.testing.assert_close(readout(features), expected)
    uniform = torch.zeros(1, 1, 6, 5, 7, dtype=torch.float64)
    uniform[:, :, 4] = 1
    torch.testing.assert_close(readout(uniform)[0, 0] - readout.bias, readout.embedding()[:, 4])
