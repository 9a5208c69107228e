"""The slot between loop and server: the newest item alone, who waits is woken, and its end ends all waiting."""

import asyncio
import threading

from cled_edge.serve.channel import Channel


def test_a_reader_gets_the_newest_item_and_waits_for_a_newer_one() -> None:
    channel: Channel[str] = Channel()

    async def read() -> list[tuple[int, str] | None]:
        channel.put("a")
        channel.put("b")
        found = [await channel.newer_than(0)]
        threading.Timer(0.02, channel.put, ["c"]).start()
        found.append(await asyncio.wait_for(channel.newer_than(2), 5))
        return found

    assert asyncio.run(read()) == [(2, "b"), (3, "c")]


def test_closing_wakes_all_who_wait_and_nobody_waits_any_more() -> None:
    channel: Channel[str] = Channel()

    async def read() -> list[object]:
        waiting = [asyncio.create_task(channel.newer_than(0)) for _ in range(3)]
        threading.Timer(0.02, channel.close).start()
        found = await asyncio.wait_for(asyncio.gather(*waiting), 5)
        channel.put("late")
        return [*found, await channel.newer_than(0)]

    assert asyncio.run(read()) == [None] * 4


def test_a_reader_whose_loop_has_ended_harms_nobody() -> None:
    channel: Channel[str] = Channel()

    async def leave() -> None:
        task = asyncio.ensure_future(channel.newer_than(0))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(leave())
    channel.put("a")
    assert channel.number == 1
