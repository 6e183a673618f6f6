"""What adversarial training begins with: the discriminator that the generator itself was trained against (§6)."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from e3dge_video.inversion.load import discriminator_of
from e3dge_video.models.discriminators import DualDiscriminator, ImageDiscriminator
from e3dge_video.weights.bundle import DISCRIMINATOR_FILE, Bundle

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FirstJudge:
    """The discriminator at the first step.

    Attributes:
        network: The generator's own; None: its bundle holds none, and one begins at random.
        origin: The same in words, with the hash of its file.
    """

    network: DualDiscriminator | ImageDiscriminator | None
    origin: str

    @property
    def options(self) -> dict[str, str]:
        """What a run's checkpoint must remember besides its options: it goes on with no other start."""
        return {} if self.network is None else {"first_discriminator": self.origin}

    def announce(self) -> None:
        """Say in the log what it is; random numbers are no silent choice."""
        if self.network is None:
            log.warning(
                "the discriminator begins with random numbers: the model does not hold its generator's own; import it "
                "with --discriminator to begin with that"
            )
        else:
            log.info("the discriminator begins as %s", self.origin)


def first_judge(bundle: Bundle) -> FirstJudge:
    """The discriminator of a bundle, read with it.

    Raises:
        ModelError: It has tensors that do not fit its options.
    """
    network = discriminator_of(bundle)
    if network is None:
        return FirstJudge(None, "random numbers")
    return FirstJudge(network, f"the generator's own, SHA-256 {bundle.spec.files[DISCRIMINATOR_FILE]}")
