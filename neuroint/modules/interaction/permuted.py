"""Controls of the interactions that read positions or embeddings: see ``neuroint.modules.permuted``."""

from __future__ import annotations

from neuroint.modules.permuted import identities_control, positions_control
from neuroint.registry import interactions

permuted_positions = interactions.register("permuted_positions")(
    positions_control(interactions, {"name": "neighbor_attention"})
)
permuted_identities = interactions.register("permuted_identities")(
    identities_control(interactions, {"name": "attention"})
)
