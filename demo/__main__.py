"""`make demo`: meters to tokens on this machine, on the real programs."""

import asyncio
import contextlib
import json
import signal
import sys
import time

from demo.books import Books, buffer_depth, read_books
from demo.broker import prepare_broker
from demo.ending import add_up, drain
from demo.installation import (
    Installation,
    agent_config,
    gateway_ids,
    install,
    sign_in_links,
)
from demo.meters import serve_meters
from demo.place import Place, command, demo_seconds, take_place, write_private
from demo.processes import DemoError, Program, Supervisor, wait_for_port
from demo.town import METERS, OWNERS, TownClock
from demo.view import Snapshot, View, error


class Demo:
    """One run, from the first program started to the last one stopped."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.supervisor = Supervisor()
        self.view = View()
        self.clock = TownClock(place.path("town.json"))
        self.stop = asyncio.Event()
        self.links: dict[str, str] = {}

    async def run(self, seconds: float | None) -> int:
        """Start everything, let the town live, drain, add up; return the exit code."""
        installation = await self._start()
        watcher = asyncio.create_task(self.supervisor.watch())
        async with serve_meters(self.place, self.clock):
            self._start_agents()
            self.view.open()
            try:
                await self._live(seconds)
                self.clock.hold()
                missing = await drain(self.place, self.clock, self._tick)
            finally:
                self.clock.hold()
                self.view.close()
            for owner in OWNERS:
                await self.supervisor.stop(f"agent-{owner}")
            await self.supervisor.stop("cloud")
        sums = await asyncio.to_thread(add_up, self.place, installation, self.clock, missing)
        watcher.cancel()
        await self.supervisor.stop_all()
        restarts = sum(program.restarts for program in self.supervisor.programs)
        if restarts:
            print(f"programs that died and were started again: {restarts}", flush=True)
        below = sums.line["below_resolution_wh"]
        print(f"below the meters' resolution, shown by no register yet: {below} Wh", flush=True)
        for remark in sums.remarks:
            error(remark)
        print(json.dumps(sums.line), flush=True)
        return 0 if sums.ok else 1

    async def _start(self) -> Installation:
        place = self.place
        gateways = await asyncio.to_thread(gateway_ids, place)
        broker = prepare_broker(place, list(gateways.values()))
        if broker.lacks:
            print(f"demo: {broker.lacks}", flush=True)
        self.supervisor.add(broker.program)
        argv = [command("gtx-cloud"), "localnet", "--port", str(place.ports["rpc"])]
        argv += ["--block-ms", "400", "--state-file", str(place.path("chain.db"))]
        localnet = self.supervisor.add(Program("localnet", argv, place.logs / "localnet.log"))
        await wait_for_port(place.ports["mqtt"], broker.program)
        await wait_for_port(place.ports["rpc"], localnet)
        rpc_url = f"http://127.0.0.1:{place.ports['rpc']}"
        installation = await asyncio.to_thread(install, place, gateways, rpc_url)
        argv = [command("gtx-cloud"), "run"]
        cloud = Program("cloud", argv, place.logs / "cloud.log", installation.cloud_env)
        self.supervisor.add(cloud)
        await wait_for_port(place.ports["http"], cloud)
        await wait_for_port(place.ports["ws"], cloud)
        self.links = await asyncio.to_thread(sign_in_links, place, installation.cloud_env)
        write_private(place.path("links.json"), json.dumps(self.links))
        for who, link in self.links.items():
            print(f"the live page as {who}: {link}", flush=True)
        return installation

    def _start_agents(self) -> None:
        for owner in OWNERS:
            argv = [command("gtx-agent"), "run", "--config", str(agent_config(self.place, owner))]
            log = self.place.logs / f"agent-{owner}.log"
            self.supervisor.add(Program(f"agent-{owner}", argv, log))

    async def _live(self, seconds: float | None) -> None:
        """Let the town's day pass, once every meter has a baseline in the ledger."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self.stop.is_set() and (deadline is None or time.monotonic() < deadline):
            books = await self._tick("running")
            if not self.clock.running and _has_baselines(books):
                self.clock.run()
            self.clock.reserve()
            self._write_pids()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await self.stop.wait()

    async def _tick(self, phase: str) -> Books:
        books = read_books(self.place.path("cloud.db"))
        depths = {
            owner: buffer_depth(self.place.folder / f"agent-{owner}" / "buffer.db")
            for owner in OWNERS
        }
        restarts = sum(program.restarts for program in self.supervisor.programs)
        self.view.show(Snapshot(self.clock, books, depths, self.links, phase, restarts))
        return books

    def _write_pids(self) -> None:
        pids = {program.name: program.pid for program in self.supervisor.programs}
        write_private(self.place.path("pids.json"), json.dumps(pids))


def _has_baselines(books: Books) -> bool:
    return all(
        meter.meter_id in books.meters and books.meters[meter.meter_id].readings for meter in METERS
    )


async def _main() -> int:
    demo = Demo(take_place())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, demo.stop.set)
    try:
        return await demo.run(demo_seconds())
    finally:
        await demo.supervisor.stop_all()


def main() -> int:
    """Run the demo; return its exit code."""
    try:
        return asyncio.run(_main())
    except DemoError as exc:
        error(str(exc))
        return 1


if __name__ == "__main__":
    sys.exit(main())
