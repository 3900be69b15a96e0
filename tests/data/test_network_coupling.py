"""The couplings of the chaotic network that are handed out are those that its rates were made with."""

import numpy as np

from neuroint.data.simulators.nlb_parts import dynamics


def test_couplings_of_a_seed_are_those_that_the_network_ran_with(monkeypatch):
    used = []
    run = dynamics._network_path
    monkeypatch.setattr(dynamics, "_network_path", lambda *given: used.append(given[1]) or run(*given))
    dynamics.chaotic(3, np.array([0, 1, 0]), bins=4, neurons=8, variability=0.3)
    coupling = dynamics.network_coupling(3, neurons=8)
    assert coupling.shape == (12, 12)
    assert len(used) == 2
    for one in used:
        np.testing.assert_array_equal(one, coupling)
    assert not np.array_equal(coupling, dynamics.network_coupling(4, neurons=8))
