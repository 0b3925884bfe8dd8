"""Where the time goes when the device waits for data."""

from resnet_jax.data.prefetch import Prefetcher
from resnet_jax.data.sources.source import Source

_TOO_MUCH = 0.1


def diagnosis(feed: Prefetcher, source: Source, images: int, seconds: float) -> str | None:
    """Returns one line on what holds a run up when more than a tenth of its time is waiting for
    data.

    Args:
      feed: what the run has been reading.
      source: where its images come from.
      images: how many this process has used since the feed was opened.
      seconds: how long that took.

    Returns:
      The line, or None if the data keeps up, or makes images faster than the device takes them.
    """
    if not images or feed.wait <= _TOO_MUCH * seconds or not feed.busy:
        return None
    pipeline, device = feed.made / feed.busy, images / max(seconds - feed.wait, 1e-9)
    # The wait was then for the first batch, and the run too short to hide it.
    if pipeline >= device:
        return None
    remedy = "more cores, or a larger data.num_threads"
    if source.image_shape is None and source.name != "shards":
        remedy = (
            "more cores, or prepare shrunken shards with python launch.py --mode=prepare"
            f" --source={source.name} --data_dir=DATA --output_dir=DIR --short_side=256"
        )
    elif source.image_shape is None:
        remedy = "more cores, or prepare the shards again with a smaller --short_side"
    return (
        f"{feed.wait / seconds:.0%} of the time went into waiting for data: the data pipeline makes"
        f" {pipeline:,.0f} images/s, the device takes {device:,.0f}: {remedy}"
    )
