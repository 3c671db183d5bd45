"""One kprof drives a run: a Lease that the driver renews, and that nobody else may take while it is fresh."""

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from orchestrator.cluster.kubernetes.health import boot_time
from orchestrator.cluster.kubernetes.transport import LAST_CALL_SECONDS, ApiError, Object, Transport
from orchestrator.cluster.port import MANAGED, RUN_LABEL
from orchestrator.cluster.process import Driver
from orchestrator.cluster.uninterrupted import uninterrupted
from orchestrator.errors import ClusterError, RunDrivenError

LEASE_SECONDS = 15
RENEW_SECONDS = 5.0
SURE_SECONDS = 10.0  # after a renewal nobody else can have taken the Lease for so long
ABANDONED_SECONDS = 600  # a kprof that has not renewed for so long was killed, and nobody resumed its run
RENEW_OUTAGE_SECONDS = 2.0  # a call itself may take longer
RELEASE_SECONDS = 5.0
REMEDY = "docs/rbac.md lists what kprof needs"


def lease_path(namespace: str) -> str:
    """Return the path of a namespace's Leases."""
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"


def holder_of(lease: Object) -> str:
    """Return who holds a Lease; empty when nobody does."""
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


async def server_time(transport: Transport, namespace: str) -> datetime.datetime:
    """Return the API server's clock: a Lease made as a dry run carries it, so that no two clocks are compared."""
    body = _body("kprof-clock", "", Driver.this())
    body["metadata"] = {"generateName": "kprof-clock-"}
    made = await transport.call("POST", lease_path(namespace), {"dryRun": "All"}, body)
    return _time(made["metadata"]["creationTimestamp"])


def renewed_at(lease: Object) -> datetime.datetime:
    """Return when a Lease was last written, by the API server's clock."""
    metadata = lease["metadata"]
    times = [str(field["time"]) for field in metadata.get("managedFields") or [] if field.get("time")]
    return max(_time(text) for text in [*times, metadata["creationTimestamp"]])


async def abandoned_runs(transport: Transport, namespace: str) -> list[str]:
    """Return the runs whose Lease ran out long ago: a kprof that ends in order deletes its Lease.

    Returns none without the right to list Leases.
    """
    try:
        found = await transport.call("GET", lease_path(namespace), {"labelSelector": f"{RUN_LABEL},{MANAGED}"})
        leases = found.get("items") or []
        if not leases:
            return []
        now = await server_time(transport, namespace)
    except ApiError:
        return []
    old = [lease for lease in leases if (now - renewed_at(lease)).total_seconds() > ABANDONED_SECONDS]
    return sorted(str(lease["metadata"]["labels"][RUN_LABEL]) for lease in old)


class RunLease:
    """The Lease of one run in one namespace."""

    def __init__(self, transport: Transport, namespace: str, run: str, *, driver: Driver | None = None) -> None:
        self._transport = transport
        self._namespace = namespace
        self._run = run
        self._name = f"kp-{run[:8]}"
        self._leases = lease_path(namespace)
        self._path = f"{self._leases}/{self._name}"
        self._driver = driver or Driver.this()
        self._lease: Object = {}
        self._renewed = (0.0, 0.0)  # by the loop's clock, and by one that goes on while the machine sleeps
        self._lost: RunDrivenError | None = None
        self._renewal = asyncio.Lock()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold the Lease while the body runs; raises RunDrivenError when another kprof has it, or takes it."""
        await self._acquire()
        driver = asyncio.current_task()
        renewing = asyncio.create_task(self._renew(), name=f"lease of {self._run}")
        inside = True

        def ended(task: asyncio.Task[None]) -> None:
            if inside and not task.cancelled() and task.exception() is not None and driver is not None:
                driver.cancel()  # the run is lost: what drives it must stop

        renewing.add_done_callback(ended)
        try:
            yield
        except BaseException:  # whatever ends the body, a lost run is the reason that counts
            inside = False
            if (lost := _failure(renewing)) is None:
                raise
            if driver is not None:
                driver.uncancel()
            raise lost from None
        else:
            inside = False
            if (lost := _failure(renewing)) is not None:
                raise lost
        finally:
            inside = False
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            await uninterrupted(self._release())

    async def confirm(self) -> None:
        """Return once the Lease is surely held, so that the caller may change the run; raises RunDrivenError.

        After an outage, or a sleep of this machine, another kprof may drive the run by now.
        """
        async with self._renewal:
            if self._lost is not None:
                raise self._lost
            # The loop's clock stands still while the machine sleeps.
            if any(now - then > SURE_SECONDS for now, then in zip(_clocks(), self._renewed, strict=True)):
                await self._renew_once(self._transport)

    async def _acquire(self) -> None:
        if await self._created():
            return
        lease = await self._read()
        if lease is None:
            await self._acquire()
            return
        await self._refuse_if_fresh(lease)
        self._lease = lease
        if not await self._write():
            await self._acquire()  # somebody was faster; now it is fresh

    async def _created(self) -> bool:
        began = _clocks()
        try:
            self._lease = await self._transport.call("POST", self._leases, body=self._new())
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise ClusterError(f"creating the run's Lease: {error.message}", remedy=REMEDY) from error
            return False
        self._renewed = began
        return True

    async def _refuse_if_fresh(self, lease: Object) -> None:
        holder = holder_of(lease)
        driver = Driver.parse(holder)
        if not holder or holder == str(self._driver) or (driver is not None and driver.known_dead):
            return
        age = (await server_time(self._transport, self._namespace) - renewed_at(lease)).total_seconds()
        if age <= LEASE_SECONDS:
            who = f"{driver.host}, process {driver.pid}" if driver else holder
            raise RunDrivenError(
                f"run {self._run} is being driven by another kprof ({who}), heard of {max(0.0, age):.0f} s ago",
                remedy=f"wait for it, start another run with --fresh; if it died, try again in {LEASE_SECONDS} s",
            )

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            # An outage: nobody else can take the Lease meanwhile, and whoever changes the run asks `confirm` first.
            with suppress(ClusterError):
                async with self._renewal:
                    await self._renew_once(self._transport.with_outage(RENEW_OUTAGE_SECONDS))

    async def _renew_once(self, transport: Transport) -> None:
        """Renew the Lease, taking it again if it is gone; raises RunDrivenError when another kprof has it."""
        while not await self._write(transport):
            lease = await self._read()
            if lease is None:
                await self._acquire()
                return
            if holder_of(lease) != str(self._driver):
                self._lost = RunDrivenError(
                    f"another kprof took over run {self._run} ({holder_of(lease)}); this one stops",
                    remedy="let one kprof drive a run",
                )
                raise self._lost
            self._lease = lease

    async def _write(self, transport: Transport | None = None) -> bool:
        """Write holder and time; False when the Lease changed since it was read, or is gone."""
        began = _clocks()
        body = {**self._lease, "spec": self._new()["spec"]}
        try:
            self._lease = await (transport or self._transport).call("PUT", self._path, body=body)
        except ApiError as error:
            if error.code in {404, 409}:
                return False
            raise ClusterError(f"renewing the run's Lease: {error.message}", remedy=REMEDY) from error
        self._renewed = began
        return True

    async def _read(self) -> Object | None:
        try:
            return await self._transport.call("GET", self._path)
        except ApiError as error:
            if error.code == 404:
                return None
            raise ClusterError(f"reading the run's Lease: {error.message}", remedy=REMEDY) from error

    async def _release(self) -> None:
        """Delete the Lease if it is still this kprof's; what fails here expires by itself."""
        with suppress(ApiError, ClusterError, TimeoutError):
            async with asyncio.timeout(LAST_CALL_SECONDS if self._transport.health.late else RELEASE_SECONDS):
                lease = await self._read()
                if lease is None or holder_of(lease) != str(self._driver):
                    return
                precise = {"uid": lease["metadata"]["uid"], "resourceVersion": lease["metadata"]["resourceVersion"]}
                options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": precise}
                await self._transport.with_outage(RELEASE_SECONDS).call("DELETE", self._path, body=options)

    def _new(self) -> Object:
        return _body(self._name, self._run, self._driver)


def _clocks() -> tuple[float, float]:
    return asyncio.get_running_loop().time(), boot_time()


def _failure(task: asyncio.Task[None]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


def _body(name: str, run: str, driver: Driver) -> Object:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "labels": {RUN_LABEL: run, "app.kubernetes.io/managed-by": "kprof"}},
        "spec": {"holderIdentity": str(driver), "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now},
    }


def _time(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)
