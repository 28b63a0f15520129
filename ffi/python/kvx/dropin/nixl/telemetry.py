"""What a transfer took."""

from __future__ import annotations


class nixlXferTelemetry:
    """Times in microseconds, sizes, and the number of descriptors after merging."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values = (0, 0, 0, 0, 0)

    @property
    def startTime(self) -> int:
        """When it was posted, in microseconds of the monotonic clock."""
        return self._values[0]

    @property
    def postDuration(self) -> int:
        """How long the post took, in microseconds."""
        return self._values[1]

    @property
    def xferDuration(self) -> int:
        """From the post until the transfer was seen to be done, in microseconds."""
        return self._values[2]

    @property
    def totalBytes(self) -> int:
        """Bytes that it moved."""
        return self._values[3]

    @property
    def descCount(self) -> int:
        """Runs that they moved in."""
        return self._values[4]

    def __repr__(self) -> str:
        return (
            f"nixlXferTelemetry(startTime={self.startTime}, postDuration={self.postDuration}, "
            f"xferDuration={self.xferDuration}, totalBytes={self.totalBytes}, "
            f"descCount={self.descCount})"
        )


def measured(
    start: int, posted: int, transferred: int, size: int, descriptors: int
) -> nixlXferTelemetry:
    """Telemetry with these values, in the order of its attributes above."""
    made = nixlXferTelemetry()
    made._values = (start, posted, transferred, size, descriptors)
    return made
