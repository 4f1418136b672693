"""How fast, how broadly and how patiently m3ter is asked: the numbers."""

from __future__ import annotations

from dataclasses import dataclass

import urllib3


@dataclass(frozen=True)
class Limits:
    """The limits of one client of m3ter. The defaults are those of an export."""

    requests_per_second: float = 40.0
    connections: int = 64
    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 60.0
    """The seconds without a single byte after which a request has failed."""
    request_seconds: float = 300.0
    """How long one request may take, however steadily its bytes come."""
    page_seconds: float = 900.0
    """How long all tries of one request may take together, without the waits between them."""
    stop_seconds: float = 1.0
    """How long requests may still take once the run is being stopped."""
    patience_seconds: float = 60.0
    """How long the waits between tries of one request may take in total, while m3ter answers others."""
    outage_patience_seconds: float = 900.0
    """How long m3ter may be down as a whole, answering nobody."""
    rate_limit_patience_seconds: float = 360.0
    """The total after a 429: m3ter's limit per address is counted over five minutes (guide "Config API Limits")."""
    longest_pause_seconds: float = 15.0
    """The longest pause between two tries, unless m3ter asks for a longer one."""
    download_seconds: float = 6 * 3600.0
    """How long a file may take, all tries together."""
    download_tries: int = 6
    """How many tries of a download in a row may bring no new byte."""
    job_pause_seconds: float = 1.0
    """Before an export job is asked about for the first time; later pauses grow up to `longest_job_pause_seconds`."""
    longest_job_pause_seconds: float = 20.0
    again_after: tuple[float, ...] = (2.0, 10.0, 30.0)
    """The pauses, in job pauses, before an empty file is asked for again: at a new address, of a new job, and so on."""
    job_patience_seconds: float = 6 * 3600.0
    """m3ter says nothing about how long a job takes; its file can be had for 24 hours."""
    renew_before_seconds: float = 300.0
    """How long before a token expires it is renewed; a tenth of its lifetime if that is shorter."""

    times_unpacked: int = 200
    """The most bytes that a byte of gzip may stand for: lists have 5 to 50, and what has 1,000 is made to harm."""
    unpacked_anyway: int = 16 << 20
    """So many bytes may always come of a piece of gzip."""

    def most_unpacked(self, packed: int) -> int:
        return max(self.times_unpacked * packed, self.unpacked_anyway)

    @property
    def timeout(self) -> urllib3.Timeout:
        return urllib3.Timeout(connect=self.connect_timeout_seconds, read=self.read_timeout_seconds)
