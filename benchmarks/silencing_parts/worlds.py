"""Two populations of which it is known what held-in neurons tell about held-out ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter1d

from neuroint.data.base import DEV_TEST, TRAIN, Session
from neuroint.data.nlb.hdf5 import read_arrays
from neuroint.data.observed import MaskedSource
from neuroint.data.readers.nlb import read_nlb
from neuroint.data.simulators.nlb import simulate_nlb
from neuroint.data.simulators.nlb_parts.dynamics import network_coupling
from neuroint.data.trials import TrialSource
from neuroint.seeding import generator

SEED, BIN_MS, GROUP = 0, 20, "mc_maze_20"
HUBS, DRIVEN = 6, 0.5  # neurons that drive held-out ones, and the standard deviation of log rates that they make
SMOOTHED_BINS = (0.0, 1.5, 4.0)  # 0, 30 and 80 ms: the views of each record that a regression reads
RIDGE = 1e-3  # times the number of bins; views are of unit variance


@dataclass(frozen=True)
class World:
    """A recording and its truth.

    Attributes:
        session: held-in neurons first.
        rates: true rates of held-out neurons, responses per bin, of all clips.
        drives: per held-in neuron how strongly it drives held-out ones, by construction.
        hubs: the only held-in neurons that do; empty where all may.
    """

    session: Session
    rates: Float[np.ndarray, "clips time heldout"]
    drives: Float[np.ndarray, " heldin"]
    hubs: Int[np.ndarray, " hubs"]

    @property
    def held_in(self) -> int:
        """Number of neurons with records."""
        return self.session.facts.observed_channels

    def truth(self, tier: str) -> Float[np.ndarray, "clips time neurons"]:
        """True rates in the place of the responses of a tier; 0 for held-in neurons, which are not scored."""
        rates = self.rates[self.session.clips(tier)]
        return np.concatenate([np.zeros((*rates.shape[:2], self.held_in)), rates], axis=2)


def network(folder: Path) -> World:
    """Read the chaotic network of the simulator, simulated unless it is there; what drives is sum_i |W_ij|."""
    path = folder / "nlb"
    if not path.is_dir():
        simulate_nlb(path, preset="test", seed=SEED)
    session = read_nlb(path, bin_ms=BIN_MS)[0]
    held_in, neurons = session.facts.observed_channels, session.facts.n_neurons
    rates = read_arrays(path / "truth.h5", GROUP)
    known = [
        np.concatenate([np.asarray(rates[f"{split}_rates_heldout{tail}"]) for tail in ("", "_forward")], axis=1)
        for split in ("train", "eval")
    ]
    coupling = np.abs(network_coupling(SEED, neurons))[held_in:neurons, :held_in].sum(axis=0)
    return World(session, np.concatenate(known).astype(np.float64), coupling, np.array([], np.int64))


def planted(folder: Path) -> World:
    r"""Let six held-in neurons of the network drive all held-out ones by their counts in the same bin.

    .. math:: r_i(t) = \bar r_i\, e^{.5\, w_i \cdot z(t)} / \langle e^{.5\, w_i \cdot z} \rangle

    with z the counts of the six, of mean 0 and standard deviation 1, and w_i random of length 1. The six are drawn at
    random. Held-in records stay.
    """
    base = network(folder)
    counts, source = _counts(base.session)
    draw = generator(SEED, "planted")
    hubs = np.sort(draw.choice(base.held_in, HUBS, replace=False))
    weights = draw.normal(size=(HUBS, base.rates.shape[2]))
    weights /= np.linalg.norm(weights, axis=0)
    z = np.nan_to_num(counts[..., hubs])
    gain = np.exp(DRIVEN * ((z - z.mean((0, 1))) / z.std((0, 1))) @ weights)
    rates = base.session.facts.mean_responses[base.held_in :] * gain / gain.mean((0, 1))
    responses = np.concatenate([counts[..., : base.held_in], draw.poisson(rates)], axis=2).astype(np.float32)
    session = replace(base.session, source=replace(source, source=TrialSource(responses)))
    drives = np.zeros(base.held_in)
    drives[hubs] = np.abs(weights).sum(axis=1)
    return World(session, rates.astype(np.float64), drives, hubs)


WORLDS: Mapping[str, Callable[[Path], World]] = {"network": network, "planted": planted}


def told_by_each(world: World) -> Float[np.ndarray, " heldin"]:
    """Measure what each record alone tells: the R2 that a linear regression on all records loses without it.

    Ridge regression of true log rates of held-out neurons, fitted to training clips anew without each neuron in turn;
    R2 on dev-test clips, averaged over neurons.
    """
    views, logs = {}, {}
    for tier in (TRAIN, DEV_TEST):
        clips = world.session.clips(tier)
        read = [world.session.source.read(int(clip), 0, int(world.session.lengths[clip])) for clip in clips]
        shown = len(read[0].responses) - read[0].unseen
        observed = np.stack([np.asarray(clip.observed)[:shown] for clip in read]).astype(np.float64)
        views[tier] = _views(observed)
        logs[tier] = np.log(world.rates[clips][:, :shown]).reshape(-1, world.rates.shape[2])
    neurons = world.held_in
    everyone = _r2(views, logs, np.arange(neurons))
    return np.array([everyone - _r2(views, logs, np.delete(np.arange(neurons), j)) for j in range(neurons)])


def _views(observed: Float[np.ndarray, "clips time heldin"]) -> Float[np.ndarray, "bins views heldin"]:
    found = np.stack([gaussian_filter1d(observed, sd, axis=1) if sd else observed for sd in SMOOTHED_BINS], axis=2)
    return found.reshape(-1, *found.shape[2:])


def _r2(views: dict[str, np.ndarray], logs: dict[str, np.ndarray], kept: np.ndarray) -> float:
    center, scale = views[TRAIN].mean(axis=0), views[TRAIN].std(axis=0)
    x, new = (((views[tier] - center) / scale)[..., kept].reshape(len(views[tier]), -1) for tier in (TRAIN, DEV_TEST))
    mean = logs[TRAIN].mean(axis=0)
    weights = np.linalg.solve(x.T @ x + RIDGE * len(x) * np.eye(x.shape[1]), x.T @ (logs[TRAIN] - mean))
    error = ((logs[DEV_TEST] - mean - new @ weights) ** 2).mean(axis=0)
    return float((1 - error / logs[DEV_TEST].var(axis=0)).mean())


def _counts(session: Session) -> tuple[Float[np.ndarray, "clips time neurons"], MaskedSource]:
    source = session.source
    if not isinstance(source, MaskedSource) or not isinstance(source.source, TrialSource):
        raise TypeError(f"source of session '{session.name}' is {type(source).__name__}; expected masked trials")
    return np.asarray(source.source.responses, np.float64), source
