"""What becomes of the model's confidence when only the salient pixels are left: one forward."""

from torch import Tensor

from lightning_gcam.metrics.functional.mean import PerSample, mean_counted
from lightning_gcam.metrics.functional.probabilities import check_probabilities, scored


def _average_drop_update(before: Tensor, after: Tensor, blank: Tensor | None) -> PerSample:
    """Each sample's loss of confidence as a share of what there was to lose."""
    before, after = check_probabilities("before", before), check_probabilities("after", after, before)
    after = after.to(before.device)
    drop = (before - after).clamp(min=0) / before
    return scored(drop, (before > 0) & after.isfinite(), blank)


def average_drop(before: Tensor, after: Tensor, blank: Tensor | None = None) -> Tensor:
    """Average, over the samples, max(0, before - after) / before: the share of the confidence that is lost.

    ``after`` is the probability of the same class for the image of which only the salient pixels are left; see
    :func:`keep_salient`. Published tables give percent. A sample whose map is blank, whose probability was 0,
    or is NaN, is left out, where torch-cam scores a probability of 0 as no drop.

    Args:
        before: ``(N,)`` floating, probabilities of the explained class for the images.
        after: ``(N,)`` floating, the same for the images multiplied by their maps.
        blank: ``(N,)`` bool, True where the map is blank; none where it is left out.

    Returns:
        A float32 scalar in [0, 1], lower is better, on the device of ``before``; NaN if every sample was left
        out.

    Raises:
        ValueError: If these are not probabilities ``(N,)`` in [0, 1], or ``blank`` is not bool ``(N,)``.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import average_drop
        >>> average_drop(torch.tensor([0.8, 0.5]), torch.tensor([0.4, 0.6]))
        tensor(0.2500)

    Source:
        Chattopadhyay et al., "Grad-CAM++", 2018, arXiv 1710.11063 (section 4.1).
    """
    return mean_counted(_average_drop_update(before, after, blank))


def _average_increase_update(before: Tensor, after: Tensor, blank: Tensor | None) -> PerSample:
    """1 for each sample that is more confident with the salient pixels alone."""
    before, after = check_probabilities("before", before), check_probabilities("after", after, before)
    after = after.to(before.device)
    return scored((after > before).float(), before.isfinite() & after.isfinite(), blank)


def average_increase(before: Tensor, after: Tensor, blank: Tensor | None = None) -> Tensor:
    """Give the share of the samples whose confidence is higher with only the salient pixels left.

    Published tables give percent. A sample whose map is blank, or one of whose probabilities is NaN, is left
    out.

    Args:
        before: ``(N,)`` floating, probabilities of the explained class for the images.
        after: ``(N,)`` floating, the same for the images multiplied by their maps.
        blank: ``(N,)`` bool, True where the map is blank; none where it is left out.

    Returns:
        A float32 scalar in [0, 1], higher is better, on the device of ``before``; NaN if every sample was left
        out.

    Raises:
        ValueError: If these are not probabilities ``(N,)`` in [0, 1], or ``blank`` is not bool ``(N,)``.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import average_increase
        >>> average_increase(torch.tensor([0.8, 0.5]), torch.tensor([0.4, 0.6]))
        tensor(0.5000)

    Source:
        Chattopadhyay et al., "Grad-CAM++", 2018, arXiv 1710.11063 (section 4.1, increase in confidence).
    """
    return mean_counted(_average_increase_update(before, after, blank))


def _average_gain_update(before: Tensor, after: Tensor, blank: Tensor | None) -> PerSample:
    """Each sample's gain of confidence as a share of what there was to gain."""
    before, after = check_probabilities("before", before), check_probabilities("after", after, before)
    after = after.to(before.device)
    gain = (after - before).clamp(min=0) / (1 - before)
    return scored(gain, (before < 1) & after.isfinite(), blank)


def average_gain(before: Tensor, after: Tensor, blank: Tensor | None = None) -> Tensor:
    """Average, over the samples, max(0, after - before) / (1 - before): the share of the doubt that is lost.

    The counterpart of :func:`average_drop`, which a map of ones everywhere wins; this one it loses. Published
    tables give percent. A sample whose map is blank, whose probability was 1 already (as float32 rounds it),
    or is NaN, is left out.

    Args:
        before: ``(N,)`` floating, probabilities of the explained class for the images.
        after: ``(N,)`` floating, the same for the images multiplied by their maps.
        blank: ``(N,)`` bool, True where the map is blank; none where it is left out.

    Returns:
        A float32 scalar in [0, 1], higher is better, on the device of ``before``; NaN if every sample was left
        out.

    Raises:
        ValueError: If these are not probabilities ``(N,)`` in [0, 1], or ``blank`` is not bool ``(N,)``.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import average_gain
        >>> average_gain(torch.tensor([0.8, 0.5]), torch.tensor([0.4, 0.6]))
        tensor(0.1000)

    Source:
        Zhang et al., "Opti-CAM", 2023, arXiv 2301.07002 (average gain).
    """
    return mean_counted(_average_gain_update(before, after, blank))


def _win_rate_update(after: Tensor, other: Tensor, blank: Tensor | None) -> PerSample:
    """1 for each sample that keeps more confidence than with the other method's map, half for a tie."""
    after, other = check_probabilities("after", after), check_probabilities("other", other, after)
    other = other.to(after.device)
    wins = (after > other).float() + 0.5 * (after == other).float()
    return scored(wins, after.isfinite() & other.isfinite(), blank)


def win_rate(after: Tensor, other: Tensor, blank: Tensor | None = None) -> Tensor:
    """Give the share of the samples for which one method's map keeps more confidence than another's.

    A tie counts half for each, so the two methods' rates add up to 1, and 0.5 is chance. What the image itself
    scored cancels out of the comparison. A sample of which one map is blank, or one of whose probabilities is
    NaN, is left out.

    Args:
        after: ``(N,)`` floating, probabilities of the explained class for the images multiplied by their maps.
        other: ``(N,)`` floating, the same with the other method's maps.
        blank: ``(N,)`` bool, True where one of the two maps is blank; none where it is left out.

    Returns:
        A float32 scalar in [0, 1], on the device of ``after``; NaN if every sample was left out.

    Raises:
        ValueError: If these are not probabilities ``(N,)`` in [0, 1], or ``blank`` is not bool ``(N,)``.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import win_rate
        >>> win_rate(torch.tensor([0.8, 0.5, 0.1]), torch.tensor([0.4, 0.5, 0.2]))
        tensor(0.5000)

    Source:
        Chattopadhyay et al., "Grad-CAM++", 2018, arXiv 1710.11063 (section 4.1, win %).
    """
    return mean_counted(_win_rate_update(after, other, blank))
