"""Annotated samples (`SaliencyBatch`), and how they are read out of any batch."""

from lightning_gcam.data.adapters import Adapter, as_saliency_batch
from lightning_gcam.data.saliency_batch import SaliencyBatch

__all__ = ["Adapter", "SaliencyBatch", "as_saliency_batch"]
