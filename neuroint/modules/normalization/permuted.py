"""Controls of the normalizations that read positions or embeddings: see ``neuroint.modules.permuted``."""

from __future__ import annotations

from neuroint.modules.permuted import identities_control, positions_control
from neuroint.registry import normalizations

permuted_positions = normalizations.register("permuted_positions")(
    positions_control(normalizations, {"name": "population_pool"})
)
permuted_identities = normalizations.register("permuted_identities")(
    identities_control(normalizations, {"name": "population_pool"})
)
