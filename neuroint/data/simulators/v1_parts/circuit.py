"""The circuit: normalization by a pool and by the neuron's own past, and coupling. What a model is to recover."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import sparse

from neuroint.data.simulators.v1_parts.settings import FRAME_S, Mechanisms

EXPONENT = 2.0  # n
SEMI_SATURATION = 0.5  # sigma^n, in units of the mean of E, which is 1
HISTORY_TAU_S = 0.2
BASELINE = 0.05  # b, in units of the mean rate

Emit = Callable[[int, Float[np.ndarray, "replays neurons"]], Float[np.ndarray, "replays neurons"]]


@dataclass(frozen=True)
class Circuit:
    """Turns the energy of the drive into rates.

    ``E_i = (e_i / rms_i)^2``; ``P = W_hat E``; ``H_i(t) = lambda H_i(t-1) + (1 - lambda) r_i(t-1)^2``;
    ``f_i = A E_i / (sigma^2 + alpha P_i + beta H_i)`` with ``A = sigma^2 + alpha + beta``, so that rates are near 1
    whatever is switched on; ``r_i = max(0, f_i + sum_j C_ij q_j(t-1) + b) g_i``, with q the rates or the spikes emitted
    (divided by their mean rate), and g the gain of behavior. Rates have no unit: 1 is a neuron's typical rate.

    Sources: Carandini and Heeger, Nat Rev Neurosci 2012 (pool); Burg et al., PLoS Comput Biol 2021 (learned
    pools, macaque V1); Zhou et al., PLoS Comput Biol 2019 (normalization over time).
    """

    pool: sparse.csr_array
    coupling: sparse.csr_array
    mechanisms: Mechanisms

    @property
    def amplitude(self) -> float:
        """A."""
        return SEMI_SATURATION + self.mechanisms.pool + self.mechanisms.own_history

    @property
    def recurrent(self) -> bool:
        """Whether a rate depends on earlier ones."""
        return self.mechanisms.own_history > 0 or self.mechanisms.coupling > 0

    @property
    def spiking(self) -> bool:
        """Whether a rate depends on earlier spikes."""
        return self.mechanisms.coupling > 0 and self.mechanisms.feeding == "spikes"

    def rates(
        self, energy: Float[np.ndarray, "time neurons"], gain: Float[np.ndarray, "time neurons"]
    ) -> Float[np.ndarray, "time neurons"]:
        """Run the circuit without noise."""
        if self.recurrent:
            return self.unroll(energy, gain, lambda _, rate: rate, replays=1)[0]
        return np.maximum(self.amplitude * energy / self._denominator(energy) + BASELINE, 0) * gain

    def unroll(
        self,
        energy: Float[np.ndarray, "time neurons"],
        gain: Float[np.ndarray, "time neurons"],
        emit: Emit,
        replays: int,
    ) -> Float[np.ndarray, "replays time neurons"]:
        """Step through time; ``emit`` says what of a frame's rates reaches other neurons at the next frame."""
        denominator, decay = self._denominator(energy), np.exp(-FRAME_S / HISTORY_TAU_S)
        rate, fed, history = (np.zeros((replays, energy.shape[1])) for _ in range(3))
        rates = np.empty((replays, *energy.shape))
        for t in range(len(energy)):
            history = decay * history + (1 - decay) * rate**EXPONENT
            own = self.amplitude * energy[t] / (denominator[t] + self.mechanisms.own_history * history)
            rate = np.maximum(own + (self.coupling @ fed.T).T + BASELINE, 0) * gain[t]
            fed = emit(t, rate)
            rates[:, t] = rate
        return rates

    def constants(self) -> dict[str, float]:
        """Parameters of the equation by name."""
        return {
            "n": EXPONENT,
            "sigma_to_the_n": SEMI_SATURATION,
            "amplitude": self.amplitude,
            "alpha": self.mechanisms.pool,
            "beta": self.mechanisms.own_history,
            "tau_s": HISTORY_TAU_S,
            "baseline": BASELINE,
            "rho": self.mechanisms.coupling,
            "kappa": self.mechanisms.like_to_like,
        }

    def _denominator(self, energy: Float[np.ndarray, "time neurons"]) -> Float[np.ndarray, "time neurons"]:
        return SEMI_SATURATION + self.mechanisms.pool * (self.pool @ energy.T).T
