"""Live pairing: the nearest within the slop, ages, degraded pairs, and the law that no frame goes without a cause."""

import os
import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cled_edge.errors import OptionError
from cled_edge.frame import ARRIVAL, MEDIA, MONOTONIC, SENDER, Frame, FramePair
from cled_edge.live_pairing import DEAD_PERIOD_NS, MODALITIES, START_NS, Modality, PairingPolicy, TimePairer, whole_ns

MS = 1_000_000
IMAGES = np.zeros((2, 3), np.uint8), np.zeros((2, 3, 3), np.uint8)
SOAK_FRAMES = int(os.environ.get("CLED_EDGE_SOAK_FRAMES", "50000"))


def frame_at(modality: Modality, taken_ms: float, late_ms: float = 0, clock: str = MONOTONIC, event: str = "") -> Frame:
    taken_ns = round(taken_ms * MS)
    image = IMAGES[MODALITIES.index(modality)]
    return Frame(image, taken_ns, clock, 0, modality, event=event, arrival_ns=taken_ns + round(late_ms * MS))


def put(pairer: TimePairer, infrared_ms: tuple[float, ...] = (), visible_ms: tuple[float, ...] = ()) -> None:
    """Deliver frames in the order in which they were taken."""
    frames = [("infrared", at) for at in infrared_ms] + [("visible", at) for at in visible_ms]
    for modality, at in sorted(frames, key=lambda each: each[1]):
        pairer.put(modality, frame_at(modality, at))


def times_ms(pair: FramePair | None) -> tuple[float | None, ...] | None:
    if pair is None:
        return None
    return tuple(None if each is None else each / MS for each in pair.taken_ns)


def run(
    pairer: TimePairer, frames: list[tuple[Modality, Frame]], ask_ms: float = 5
) -> Iterator[tuple[float, FramePair]]:
    """Deliver frames as they arrive, and ask all the time; yield the pairs with the time at which they came."""
    frames = sorted(frames, key=lambda each: each[1].arrival_ns)
    now_ms, end_ms = 0.0, frames[-1][1].arrival_ns / MS + 1000
    while now_ms < end_ms:
        while frames and frames[0][1].arrival_ns <= now_ms * MS:
            pairer.put(*frames.pop(0))
        while pair := pairer.next_pair(round(now_ms * MS)):
            yield now_ms, pair
        now_ms += ask_ms


def steady(modality: Modality, rate_hz: float, seconds: float, late_ms: float = 0) -> list[tuple[Modality, Frame]]:
    count = round(seconds * rate_hz)
    return [(modality, frame_at(modality, 1000 * k / rate_hz, late_ms)) for k in range(count)]


def test_the_newest_of_the_faster_camera_is_paired_with_the_nearest() -> None:
    pairer = TimePairer()
    put(pairer, (0, 111, 222), (5, 38, 71, 105, 138, 171, 204, 237))
    assert times_ms(pairer.next_pair(240 * MS)) == (222, 237)
    assert pairer.next_pair(241 * MS) is None
    put(pairer, (), (271,))
    assert times_ms(pairer.next_pair(275 * MS)) == (222, 271)
    ledgers = pairer.ledgers
    assert (ledgers["infrared"].fused, ledgers["infrared"].held, ledgers["visible"].fused) == (1, 1, 2)
    assert ledgers["infrared"].dropped == {"overtaken": 2}
    assert ledgers["visible"].dropped == {"overtaken": 7}


def test_an_older_frame_is_taken_where_the_newest_is_beyond_the_slop() -> None:
    pairer = TimePairer(slop_ns=30 * MS)
    put(pairer, (0, 111), (0, 33, 66, 99, 132, 165))
    assert times_ms(pairer.next_pair(170 * MS)) == (111, 132)
    assert pairer.next_pair(171 * MS) is None


def test_a_frame_waits_for_a_nearer_partner_only_while_one_is_due() -> None:
    pairer = TimePairer()
    put(pairer, (8, 41, 74), (0, 33, 66))
    assert times_ms(pairer.next_pair(75 * MS)) == (74, 66)
    put(pairer, (), (99,))
    assert pairer.next_pair(99 * MS) is None  # one of 107 ms is due, which is nearer than 74
    assert pairer.due_ns == pytest.approx(115.5 * MS)
    assert times_ms(pairer.next_pair(116 * MS)) == (74, 99)
    put(pairer, (107,), (132,))
    assert pairer.next_pair(132 * MS) is None
    put(pairer, (140,))
    assert times_ms(pairer.next_pair(140 * MS)) == (140, 132)


@pytest.mark.parametrize("policy", ["latest", "every", "deadline"])
@pytest.mark.parametrize("rates_hz", [(9, 30), (30, 30), (60, 25)])
def test_of_two_steady_cameras_the_faster_sets_the_rate(policy: PairingPolicy, rates_hz: tuple[float, float]) -> None:
    pairer = TimePairer(policy=policy)
    frames = steady("infrared", rates_hz[0], 10, 7) + steady("visible", rates_hz[1], 10, 20)
    pairs = [pair for _, pair in run(pairer, frames)]
    whole = [pair for pair in pairs if not pair.degraded]
    assert len(whole) >= 0.95 * 10 * max(rates_hz)
    skew_ms = [abs(pair.skew_ns) / MS for pair in whole]
    # "latest" holds the slower one's frame rather than waiting for the next.
    bound = 1.5 if policy == "latest" else 0.55
    assert max(skew_ms[20:-5]) < bound * 1000 / min(rates_hz)


@pytest.mark.parametrize("way_ms", [0, 10, 60, 133])
def test_frames_that_come_at_once_wait_for_those_that_are_longer_on_their_way(way_ms: float) -> None:
    pairer = TimePairer()
    pairs = list(run(pairer, steady("infrared", 30, 10, way_ms) + steady("visible", 30, 10)))
    assert len(pairs) > 290
    assert {pair.skew_ns for _, pair in pairs[20:-10]} == {0}
    assert max(at - pair.taken_ns[1] / MS for at, pair in pairs[20:-10]) < way_ms + 40


def test_every_pairs_all_frames_with_the_nearest_there_is() -> None:
    pairer = TimePairer(policy="every")
    dice = random.Random(3)
    frames = []
    for name, rate_hz in (("infrared", 9), ("visible", 30)):
        times = np.cumsum([1000 / rate_hz + dice.uniform(-9, 9) for _ in range(20 * rate_hz)])
        frames += [(name, frame_at(name, at)) for at in times]
    infrared_ms = [frame.timestamp_ns / MS for name, frame in frames if name == "infrared"]
    pairs = [times_ms(pair) for _, pair in run(pairer, frames) if not pair.degraded]
    for infrared, visible in pairs[10:]:
        assert infrared == min(infrared_ms, key=lambda at: abs(at - visible))
    assert len(pairs) >= 590
    assert pairer.ledgers["visible"].dropped == {}


def test_deadline_waits_for_the_nearest_and_no_longer_than_the_slop() -> None:
    pairer = TimePairer(policy="deadline", slop_ns=60 * MS)
    put(pairer, (0,), (40,))
    assert pairer.next_pair(40 * MS) is None
    assert pairer.due_ns == 100 * MS
    assert times_ms(pairer.next_pair(100 * MS)) == (0, 40)
    put(pairer, (110,), (80,))
    assert times_ms(pairer.next_pair(111 * MS)) == (110, 80)


def test_a_lost_camera_leaves_the_living_one_alone_until_it_is_back() -> None:
    pairer = TimePairer()
    infrared = [each for each in steady("infrared", 9, 10) if not 3000 < each[1].timestamp_ns / MS < 8000]
    pairs = list(run(pairer, infrared + steady("visible", 30, 10)))
    alone = [(at, pair) for at, pair in pairs if pair.degraded == "infrared lost"]
    assert 3450 < alone[0][0] < 3600
    assert 7900 < alone[-1][0] <= 8010
    assert len(alone) == pytest.approx(4.4 * 30, abs=5)
    for _, pair in alone:
        assert pair.infrared.image.shape == (2, 3)
        assert not pair.infrared.image.any()
        assert (pair.validity == (0, 255)).all()
        assert pair.validity.shape == (2, 3, 2)
        assert (pair.taken_ns[0], pair.skew_ns) == (None, None)
    assert all(ledger.holds for ledger in pairer.ledgers.values())


def test_two_lost_cameras_give_a_blank_pair_at_2_hz_and_no_frozen_one() -> None:
    pairer = TimePairer()
    put(pairer, (0,), (0,))
    assert times_ms(pairer.next_pair(1 * MS)) == (0, 0)
    asked = [pairer.next_pair(at * MS) for at in range(1, 5000)]
    dead = [pair for pair in asked if pair]
    assert {pair.degraded for pair in dead} == {"both lost"}
    assert len(dead) == 9
    assert dead[0].visible.image.shape == (2, 3, 3)
    assert not dead[0].visible.image.any()
    assert not dead[0].validity.any()
    assert DEAD_PERIOD_NS == 500 * MS


def test_a_camera_that_never_comes_is_waited_for_at_the_start() -> None:
    pairer = TimePairer()
    for at in range(0, 4000, 33):
        put(pairer, (), (at,))
        pair = pairer.next_pair(at * MS)
        assert (pair is not None) == (at * MS > START_NS)
        assert pair is None or pair.degraded == "infrared lost"
    assert pair.infrared.image.shape == (2, 3)


@pytest.mark.parametrize("event", ["shutter", "repeated"])
def test_a_frame_with_an_event_is_never_fused(event: str) -> None:
    pairer = TimePairer()
    put(pairer, (0,), (0,))
    assert times_ms(pairer.next_pair(0)) == (0, 0)
    pairer.put("infrared", frame_at("infrared", 100, event=event))
    put(pairer, (), (100,))
    assert times_ms(pairer.next_pair(101 * MS)) == (0, 100)
    assert pairer.ledgers["infrared"].dropped == {event: 1}


@pytest.mark.parametrize(
    ("stamp_ms", "arrival_ms", "cause"),
    [(100, 110, "repeated"), (90, 110, "out of order"), (150, 120, "from the future")],
)
def test_a_stamp_that_cannot_be_right_is_named(stamp_ms: int, arrival_ms: int, cause: str) -> None:
    pairer = TimePairer()
    put(pairer, (100,))
    pairer.put("infrared", frame_at("infrared", stamp_ms, arrival_ms - stamp_ms))
    assert pairer.ledgers["infrared"].dropped == {cause: 1}


def test_cameras_with_clocks_of_their_own_pair_by_what_arrivals_say() -> None:
    dice, pairer, frames = random.Random(8), TimePairer(policy="every"), []
    for name, rate_hz, origin_ms, pace in (("infrared", 9, 7e6, 1.02), ("visible", 30, -3e5, 0.99)):
        for k in range(round(60 * rate_hz)):
            at = 1000 * k / rate_hz
            frame = replace(frame_at(name, at, dice.uniform(5, 35)), clock=MEDIA, notes=(str(at),))
            frames.append((name, replace(frame, timestamp_ns=round((at + origin_ms) * pace * MS))))
    pairs = [pair for _, pair in run(pairer, frames) if not pair.degraded]
    true_ms = [float(pair.infrared.notes[0]) - float(pair.visible.notes[0]) for pair in pairs]
    assert len(pairs) > 1700
    assert max(abs(each) for each in true_ms[200:]) < 55.6 + 15
    told = pairer.clocks
    assert (told["infrared"]["drift"], told["visible"]["drift"]) == pytest.approx((0.02, -0.01), abs=1e-3)


def test_two_recordings_played_at_once_share_one_clock() -> None:
    pairer = TimePairer(has_one_clock=True)
    for at in range(0, 1000, 100):  # the visible is opened 40 ms later: its frames come later, but belong together
        pairer.put("infrared", frame_at("infrared", at, 1000, MEDIA))
        pairer.put("visible", frame_at("visible", at, 1040, MEDIA))
        pair = pairer.next_pair((at + 1040) * MS)
        assert pair.skew_ns == 0


@pytest.mark.parametrize(("ahead_ms", "wrong_ms"), [(0, 0), (-3000, 120)])
def test_two_wall_clocks_that_seem_to_be_one_tell_which_camera_is_slow(ahead_ms: int, wrong_ms: int) -> None:
    """The infrared comes 120 ms later than the visible; of clocks that are not one only arrivals are known."""
    pairer, frames = TimePairer(policy="every"), []
    for name, way_ms, ahead in (("infrared", 130, ahead_ms), ("visible", 10, 0)):
        for _, frame in steady(name, 25, 5, way_ms):
            stamp_ns = frame.timestamp_ns + (10**7 + ahead) * MS
            frames.append((name, replace(frame, clock=SENDER, timestamp_ns=stamp_ns, notes=(str(frame.timestamp_ns),))))
    pairs = [pair for _, pair in run(pairer, frames) if not pair.degraded]
    true_ms = [(int(pair.infrared.notes[0]) - int(pair.visible.notes[0])) / MS for pair in pairs]
    assert true_ms[60] == -wrong_ms


@pytest.mark.parametrize(("clock", "settling"), [(ARRIVAL, 7), (MEDIA, 7), (MONOTONIC, 0)])
def test_the_first_frames_by_arrival_are_left_out(clock: str, settling: int) -> None:
    """They were held up while the stream began: nobody knows how old they are."""
    pairer, paired_ms = TimePairer(), []
    for at in range(0, 2000, 40):
        if at % 200 == 0:
            pairer.put("infrared", frame_at("infrared", at))
        if not 1000 < at < 1600:
            pairer.put("visible", frame_at("visible", at, 0, clock))
        if (pair := pairer.next_pair(at * MS)) and not pair.degraded:
            paired_ms.append(at)
    assert pairer.ledgers["visible"].dropped["settling"] == 2 * settling, "at the begin, and at its return"
    assert min(paired_ms) == 40 * settling
    assert pairer.ledgers["visible"].holds


def test_where_frames_come_unsteadily_pairs_keep_so_much_off_the_slop() -> None:
    """Of a busy computer: the way of a frame is anything from 0 to 100 ms."""
    skews_ms: dict[bool, list[float]] = {False: [], True: []}
    for is_busy, found in skews_ms.items():
        pairer = TimePairer()
        for at in range(0, 4000, 40):
            if at % 400 == 0:
                pairer.put("infrared", frame_at("infrared", at))
            pairer.put("visible", frame_at("visible", at, 100 if is_busy and at % 120 == 0 else 0, ARRIVAL))
            pair = pairer.next_pair((at + 100) * MS)
            if pair and not pair.degraded and at > 1000:
                found.append(abs(pair.skew_ns) / MS)
    assert max(skews_ms[False]) > 100
    assert 0 < max(skews_ms[True]) <= 50


def test_frames_that_may_be_far_older_than_they_say_are_not_paired_but_shown_alone_where_nothing_else_is() -> None:
    """Of an RTSP camera whose server lags: its frames come unsteadily, all of them late."""
    pairer, shown = TimePairer(), {}
    for at in range(0, 9000, 40):
        for modality, is_sure in (("visible", not 1000 <= at < 6000), ("infrared", not 3000 <= at < 6000)):
            doubt_ns = (10 if is_sure else 151) * MS
            pairer.put(modality, replace(frame_at(modality, at, clock=ARRIVAL), doubt_ns=doubt_ns))
        if pair := pairer.next_pair(at * MS):
            shown[at] = pair.degraded
            assert pairer.ledgers["visible"].holds
            assert pairer.ledgers["infrared"].holds
    assert {shown.get(at) for at in range(320, 1000, 40)} == {""}
    assert {shown.get(at) for at in range(1600, 3000, 40)} == {"visible lost"}
    assert {shown.get(at) for at in range(3600, 6000, 40)} == {"infrared lost"}
    assert {shown.get(at) for at in range(6000, 9000, 40)} == {""}
    for ledger in pairer.ledgers.values():
        assert ledger.dropped["uncertain"] > 0


@pytest.mark.parametrize(("apart_ms", "is_paired"), [(89, True), (91, False)])
def test_what_a_frame_may_be_wrong_is_kept_off_the_slop(apart_ms: int, is_paired: bool) -> None:
    pairer = TimePairer()
    for at in range(0, 1200, 40):
        pairer.put("visible", replace(frame_at("visible", at, clock=ARRIVAL), doubt_ns=60 * MS))
    pairer.put("infrared", frame_at("infrared", 1160 + apart_ms))
    assert (pairer.next_pair((1160 + apart_ms) * MS) is not None) == is_paired


def test_a_wall_clock_does_not_drift_while_a_computer_that_was_busy_gets_frames_ever_sooner() -> None:
    """One camera's frames come ever sooner for 3 s and then not at all; the other's wall clock is the same."""
    pairer, wall_ms = TimePairer(), 10**6
    for at in range(0, 4000, 40):
        way_ms = 5 + (4000 - max(at, 1000)) * 0.06
        frame = frame_at("visible", at, way_ms, SENDER)
        pairer.put("visible", replace(frame, timestamp_ns=(wall_ms + at) * MS))
    for at in range(3000, 12_000, 100):
        frame = frame_at("infrared", at, 5, SENDER)
        pairer.put("infrared", replace(frame, timestamp_ns=(wall_ms + at) * MS))
    pair = pairer.next_pair(12_000 * MS)
    assert pair.taken_ns[0] / MS == pytest.approx(11_900, abs=15)


def test_frames_that_are_held_get_the_times_that_are_known_by_then() -> None:
    """Two cameras of one wall clock whose frames took 100 ms, until a quick one told what the clock is."""
    pairer, at = TimePairer(), 0
    for at in range(0, 400, 40):
        for modality in MODALITIES:
            pairer.put(modality, frame_at(modality, 10**6 + at, 100, SENDER))
    quick = frame_at("visible", 10**6 + at + 40, 0, SENDER)
    pairer.put("visible", quick)
    pair = pairer.next_pair(quick.arrival_ns)
    assert pair.skew_ns == -40 * MS
    assert pair.taken_ns[1] == quick.arrival_ns


def test_two_wall_clocks_that_agreed_stay_one_though_a_busy_computer_gets_one_late() -> None:
    pairer, skews_ms = TimePairer(), []
    for at in range(0, 45_000, 40):
        late_ms = 300 if at > 2000 else 0
        pairer.put("infrared", frame_at("infrared", 10**6 + at, 0, SENDER))
        pairer.put("visible", frame_at("visible", 10**6 + at - late_ms, late_ms, SENDER))
        pair = pairer.next_pair((10**6 + at) * MS)
        if pair and not pair.degraded and at > 40_000:
            stamps = pair.infrared.timestamp_ns, pair.visible.timestamp_ns
            skews_ms.append((stamps[0] - stamps[1]) / MS)
    assert skews_ms
    assert max(map(abs, skews_ms)) <= 150


def test_arrival_and_monotonic_stamps_compare_as_they_are() -> None:
    pairer = TimePairer()
    for at in (0, 300):
        pairer.put("infrared", frame_at("infrared", 10 + at, 0, ARRIVAL))
        pairer.put("visible", frame_at("visible", 20 + at, 30, MONOTONIC))
    pair = pairer.next_pair(360 * MS)
    assert (pair.skew_ns, pair.ages_ns(360 * MS)) == (-10 * MS, (50 * MS, 40 * MS))
    assert "drift" not in pairer.clocks["infrared"]


@pytest.mark.parametrize("policy", ["latest", "every", "deadline"])
def test_at_the_end_nothing_waits_and_nothing_counts_as_lost(policy: PairingPolicy) -> None:
    pairer = TimePairer(policy=policy)
    put(pairer, (0, 33, 66), (5, 38, 71))
    pairer.end()
    pairs = [pairer.next_pair(80 * MS) for _ in range(1 if policy == "latest" else 3)]
    assert [times_ms(pair) for pair in pairs][-1] == (66, 71)
    assert pairer.next_pair(10_000 * MS) is None


def test_pairs_are_numbered_though_cameras_count_anew() -> None:
    pairer = TimePairer()
    names = []
    for at in (0, 33, 66):
        put(pairer, (at,), (at,))
        names.append(pairer.next_pair(at * MS).name)
    assert names == ["000000", "000001", "000002"]


@pytest.mark.parametrize("wrong", [{"policy": "newest"}, {"slop_ns": 0}, {"hold_ns": -1}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=r"needed one of|must be above 0"):
        TimePairer(**wrong)


class Checked:
    """A pairer whose every pair and every count is checked."""

    def __init__(self, pairer: TimePairer) -> None:
        self.pairer = pairer
        self.put_in = dict.fromkeys(MODALITIES, 0)
        self.last = dict.fromkeys(MODALITIES, -(10**18))
        self.whole = self.alone = 0

    def put(self, modality: Modality, frame: Frame) -> None:
        self.put_in[modality] += 1
        self.pairer.put(modality, frame)

    def ask(self, now_ns: int) -> None:
        pair = self.pairer.next_pair(now_ns)
        if pair is None:
            return
        self.whole += not pair.degraded
        self.alone += bool(pair.degraded)
        assert pair.number == self.whole + self.alone - 1
        if not pair.degraded:
            assert abs(pair.skew_ns) <= self.pairer.slop_ns
        for name, frame, taken_ns in zip(MODALITIES, (pair.infrared, pair.visible), pair.taken_ns, strict=True):
            assert not frame.event
            if pair.degraded in (f"{name} lost", "both lost"):
                assert taken_ns is None
                assert not frame.image.any()
                continue
            assert taken_ns >= self.last[name]  # never back in time
            if self.pairer.policy != "every":
                assert now_ns - frame.arrival_ns <= self.pairer.hold_ns
            self.last[name] = taken_ns

    def check_law(self) -> None:
        for name, ledger in self.pairer.ledgers.items():
            assert ledger.received == self.put_in[name]
            assert ledger.holds, (name, ledger)


events = st.lists(
    st.tuples(
        st.sampled_from([*MODALITIES, "ask"]),
        st.integers(0, 120),  # ms until it happens
        st.integers(0, 90),  # ms since it was taken
        st.sampled_from(["", "", "", "", "shutter"]),
    ),
    max_size=60,
)


@given(
    events=events,
    policy=st.sampled_from(["latest", "every", "deadline"]),
    slop_ms=st.integers(1, 200),
    hold_ms=st.integers(1, 600),
    clocks=st.tuples(*[st.sampled_from([MONOTONIC, ARRIVAL, MEDIA])] * 2),
    keep=st.integers(1, 8),
)
def test_the_law_holds_and_no_pair_is_wrong_whatever_comes(events, policy, slop_ms, hold_ms, clocks, keep) -> None:
    checked = Checked(TimePairer(slop_ns=slop_ms * MS, hold_ns=hold_ms * MS, policy=policy, keep=keep))
    now_ms = 1000
    for what, wait_ms, late_ms, event in events:
        now_ms += wait_ms
        if what == "ask":
            checked.ask(now_ms * MS)
        else:
            clock = clocks[MODALITIES.index(what)]
            checked.put(what, frame_at(what, now_ms - late_ms, late_ms, clock, event))
        checked.check_law()


def faulty(modality: Modality, rate_hz: float, clock: str, count: int, dice: random.Random) -> Iterator[Frame]:
    """Yield frames of a bad camera: jitter, loss, stalls, bursts, shutters, wrong stamps, drift, resets."""
    now_ms, origin_ms, pace, stamp = 1e4, dice.uniform(0, 1e6), 1 + dice.uniform(-0.02, 0.02), 0
    held_until_ms = 0.0
    for _ in range(count):
        now_ms += 1000 / rate_hz
        chance = dice.random()
        if chance < 0.001:
            now_ms += dice.uniform(100, 8000)  # it stalls, or is lost and opened again
            if dice.random() < 0.5:
                origin_ms = -now_ms
        elif chance < 0.002:
            held_until_ms = now_ms + dice.uniform(50, 3000)  # the network holds frames up, and gives all at once
        elif chance < 0.012:
            continue  # a frame is lost
        late_ms = max(dice.uniform(2, 35), held_until_ms - now_ms)
        before, stamp = stamp, round((now_ms if clock in (MONOTONIC, ARRIVAL) else (now_ms + origin_ms) * pace) * MS)
        if chance > 0.999:
            stamp = before
        elif chance > 0.998:
            stamp += dice.randrange(-(10**10), 10**10)
        event = dice.choice(["shutter", "corrupt"]) if 0.99 < chance < 0.992 else ""
        frame = frame_at(modality, now_ms, late_ms, clock, event)
        yield replace(frame, timestamp_ns=stamp)


@pytest.mark.parametrize("policy", ["latest", "every", "deadline"])
def test_the_law_holds_over_many_frames_with_faults_of_every_kind(policy: PairingPolicy) -> None:
    """CLED_EDGE_SOAK_FRAMES says how many frames; the fault injector is seeded."""
    dice = random.Random(policy)
    checked = Checked(TimePairer(policy=policy))
    count = SOAK_FRAMES // 3
    streams = [
        faulty(name, rate_hz, clock, round(count * rate_hz / 39), dice)
        for name, rate_hz, clock in (("infrared", 9, MEDIA), ("visible", 30, MONOTONIC))
    ]
    waiting = [next(stream, None) for stream in streams]
    free_ns = 0
    while any(waiting):
        index = min((k for k in (0, 1) if waiting[k]), key=lambda k: waiting[k].arrival_ns)
        frame = waiting[index]
        now_ns = max(frame.arrival_ns, free_ns if dice.random() < 0.1 else 0)
        checked.put(MODALITIES[index], frame)
        waiting[index] = next(streams[index], None)
        if now_ns >= free_ns:
            checked.ask(now_ns)
            free_ns = now_ns + round(dice.uniform(1, 60) * MS)
        if dice.random() < 0.01:
            checked.check_law()
    checked.check_law()
    assert checked.whole > count / 4
    assert checked.alone
    held = sum(len(stream.entries) for stream in checked.pairer._streams)
    assert held <= 64


def lived(rate_hz: float, clock_pace: float, jitter_ms: float, stall_ms: tuple[float, float], dice: random.Random):
    """Yield (taken, arrived, stamp) in ms of 60 s of a camera: 5 ms on its way at least, and 1 % of its frames lost."""
    for k in range(round(60 * rate_hz)):
        taken = 1000 * k / rate_hz
        if dice.random() > 0.01 and not stall_ms[0] <= taken < stall_ms[1]:
            yield taken, taken + 5 + dice.uniform(0, jitter_ms), (taken + 1e7) * clock_pace


@pytest.mark.parametrize("inference_ms", [8, 25, 60])
@pytest.mark.parametrize(
    ("pace", "jitter_ms", "stalls_ms"),
    [
        (1.0, 0, ((0, 0), (0, 0))),
        (1.02, 30, ((0, 0), (0, 0))),
        (1.0, 30, ((20_000, 25_000), (0, 0))),
        (0.98, 30, ((0, 0), (40_000, 45_000))),
    ],
    ids=["steady", "drift-and-jitter", "infrared-stalls", "visible-stalls"],
)
def test_ages_and_skews_are_as_small_as_the_loop_allows(pace, jitter_ms, stalls_ms, inference_ms: int) -> None:
    """In virtual time: the loop infers, and asks when it is free, when a frame arrives, or when it was told to."""
    dice, pairer, frames, taken_ms = random.Random(5), TimePairer(), [], {}
    for name, rate_hz, clock_pace, stall_ms in zip(MODALITIES, (9, 30), (pace, 1.0), stalls_ms, strict=True):
        for taken, arrived, stamp in lived(rate_hz, clock_pace, jitter_ms, stall_ms, dice):
            frame = Frame(
                IMAGES[MODALITIES.index(name)], round(stamp * MS), MEDIA, 0, name, arrival_ns=round(arrived * MS)
            )
            frames.append((name, frame))
            taken_ms[id(frame)] = taken
    frames.sort(key=lambda each: each[1].arrival_ns)
    now_ns, place, ages, ways, skews, degraded = 0, 0, [], [], [], 0
    while place < len(frames):
        while place < len(frames) and frames[place][1].arrival_ns <= now_ns:
            pairer.put(*frames[place], now_ns)
            place += 1
        pair = pairer.next_pair(now_ns)
        if pair is None:
            waits_ns = [each for each in (pairer.due_ns, place < len(frames) and frames[place][1].arrival_ns) if each]
            now_ns = max(now_ns + 1, min(waits_ns, default=now_ns + 1))
            continue
        now_ns += inference_ms * MS
        degraded += bool(pair.degraded)
        if not pair.degraded and now_ns > 5000 * MS:
            infrared, visible = (taken_ms[id(frame)] for frame in (pair.infrared, pair.visible))
            ages.append(now_ns / MS - visible)
            ways.append(pair.visible.arrival_ns / MS - visible)
            skews.append(abs(infrared - visible))
    assert len(ages) > 0.8 * 50 * min(30, 1000 / inference_ms)
    assert max(skews) <= pairer.slop_ns / MS
    assert np.percentile(ages, 99) <= inference_ms + 1000 / 30 + np.percentile(ways, 99)
    assert bool(degraded) == any(end for _, end in stalls_ms)
    assert all(ledger.holds for ledger in pairer.ledgers.values())


@pytest.mark.parametrize("value_ms", [float("nan"), float("inf")])
def test_a_time_that_is_no_finite_number_is_refused(value_ms: float) -> None:
    with pytest.raises(OptionError, match=r"slop_ms is .*needed a finite number"):
        whole_ns(value_ms, "slop_ms")
