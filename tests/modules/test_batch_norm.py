"""Synchronized batch normalization is torch's own on one worker, and the whole batch's on several."""

import pytest
import torch
from torch import multiprocessing, nn
from worlds import process_group

from neuroint.modules.batch_norm import SynchronizedBatchNorm

SHAPE = (3, 5, 4, 6)  # channel, then three axes


def data(clips, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = 100 + 3 * torch.randn(clips, *SHAPE, generator=generator, dtype=torch.float64)
    return x, torch.randn(x.shape, generator=generator, dtype=torch.float64)


def prepared(kind):
    norm = kind(SHAPE[0], momentum=0.7).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, -1.0, 2.0]))
        norm.bias.copy_(torch.tensor([0.1, 0.2, -0.3]))
    return norm


def step(norm, x, weights):
    x = x.clone().requires_grad_()
    out = norm(x)
    (out * weights).sum().backward()
    return {
        "output": out.detach(),
        "input": x.grad,
        "weight": norm.weight.grad.clone(),
        "bias": norm.bias.grad.clone(),
        **{name: buffer.clone() for name, buffer in norm.named_buffers()},
    }


def test_one_worker_equals_torch_in_outputs_gradients_and_buffers():
    x, weights = data(4)
    ours, theirs = prepared(SynchronizedBatchNorm), prepared(nn.BatchNorm3d)
    for _ in range(2):
        expected = step(theirs, x, weights)
        for name, value in step(ours, x, weights).items():
            assert torch.equal(value, expected[name]), name
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_momentum_is_the_weight_of_the_new_batch():
    x, weights = data(4)
    norm = prepared(SynchronizedBatchNorm)
    step(norm, x, weights)
    torch.testing.assert_close(norm.running_mean, 0.7 * x.mean((0, 2, 3, 4)))


def test_a_vector_is_refused():
    with pytest.raises(ValueError, match=r"needs axes batch and channel at least, got shape \(3,\)"):
        SynchronizedBatchNorm(3)._check_input_dim(torch.zeros(3))


def worker(rank, folder, shares):
    torch.set_num_threads(1)
    with process_group(folder, rank):
        results = [both(rank, share) for share in shares]
    torch.save(results, f"{folder}/{rank}.pt")


def both(rank, share):
    """Two training steps on this worker's share of a batch, and what is evaluated after them."""
    x, weights = data(sum(share))
    mine = slice(sum(share[:rank]), sum(share[: rank + 1]))
    norm = prepared(SynchronizedBatchNorm)
    twice = [step(norm, x[mine], weights[mine]) for _ in range(2)]
    evaluated = norm.eval()(x[mine])  # no communication: the workers may evaluate different numbers of clips
    return {**twice[1], "evaluated": evaluated.detach()}


@pytest.mark.slow
def test_two_workers_equal_one_on_the_whole_batch(tmp_path):
    shares = [(2, 2), (1, 4), (3, 0)]
    multiprocessing.spawn(worker, (str(tmp_path), shares), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for i, share in enumerate(shares):
        x, weights = data(sum(share))
        norm = prepared(nn.BatchNorm3d)
        whole = [step(norm, x, weights) for _ in range(2)][1]
        first, second = parts[0][i], parts[1][i]
        for name in ("output", "input"):
            torch.testing.assert_close(torch.cat([first[name], second[name]]), whole[name], rtol=1e-12, atol=1e-12)
        for name in ("weight", "bias"):
            torch.testing.assert_close(first[name] + second[name], whole[name], rtol=1e-12, atol=1e-11)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(first[name], whole[name], rtol=1e-12, atol=1e-12)
            assert torch.equal(first[name], second[name]), "workers must never drift apart"
        evaluated = torch.cat([first["evaluated"], second["evaluated"]])
        torch.testing.assert_close(evaluated, norm.eval()(x).detach(), rtol=1e-12, atol=1e-12)
