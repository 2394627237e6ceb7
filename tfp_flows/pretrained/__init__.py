"""Small trained flows that come with the package, each with its card.

A card says what the model is, of which data and their licence, how it was trained, what it scores
and what it is not for. The models are to try things on, and as starting points.
"""

from tfp_flows.pretrained.cards import available, card, load

__all__ = ["available", "card", "load"]
