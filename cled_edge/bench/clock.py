"""Time as measurements see it, behind an interface that lets tests do without waiting."""

import time
from typing import Protocol

import psutil


class Clock(Protocol):
    """Nanoseconds from an arbitrary start."""

    def now_ns(self) -> int:
        """Return the time."""
        ...

    def process_ns(self) -> int:
        """Return the CPU time that all threads of this process have used."""
        ...

    def others_ns(self) -> int:
        """Return the CPU time that everything but this process has used, or taken as the hypervisor's steal."""
        ...

    def sleep_until_ns(self, time_ns: int) -> None:
        """Return at `time_ns` or just after; at once if it has passed."""
        ...

    def spin_until_ns(self, time_ns: int) -> None:
        """Return at `time_ns`, having kept a core busy until then."""
        ...


def others_percent(used_ns: int, span_ns: int) -> float:
    """Return CPU time as a share of what all CPUs of this machine have in `span_ns`."""
    return round(100 * max(0, used_ns) / (span_ns * (psutil.cpu_count() or 1)), 1)


class SystemClock:
    """The clock of the fuser's stage times."""

    def now_ns(self) -> int:
        """Return the time."""
        return time.perf_counter_ns()

    def process_ns(self) -> int:
        """Return the CPU time that all threads of this process have used."""
        return time.process_time_ns()

    def others_ns(self) -> int:
        """Return busy time minus our own; systems that count no steal or interrupts have no such field."""
        times = psutil.cpu_times()._asdict()
        busy_s = sum(times.get(name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
        return round(busy_s * 1e9) - time.process_time_ns()

    def sleep_until_ns(self, time_ns: int) -> None:
        """Sleep; the kernel wakes a process some 0.1 ms late, which a robot's camera loop suffers too."""
        while (left_ns := time_ns - time.perf_counter_ns()) > 0:
            time.sleep(left_ns / 1e9)

    def spin_until_ns(self, time_ns: int) -> None:
        """Keep asking for the time."""
        while time.perf_counter_ns() < time_ns:
            pass
