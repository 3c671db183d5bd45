"""A real Kueue for the bed: its manager is built like the bed's programs and runs on this machine while asked for."""

import base64
import contextlib
import json
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.bed import binaries
from tests.bed.binaries import Component
from tests.bed.errors import BedError
from tests.bed.layout import HERE, HOST_IP, Layout
from tests.bed.shell import run, step, tail, wait_for
from tests.e2e.kube import Kube, Object

KUEUE = Component("kueue", "sigs.k8s.io/kueue", ("sigs.k8s.io/kueue/cmd/kueue",))
NAMESPACE = "kueue-system"
GROUP = "kueue.x-k8s.io"
READY_S = 90.0
GONE_S = 50.0
# The rest of Kueue's installation is of no use here: the manager runs on this machine as the administrator, and an
# aggregated API that nobody serves would keep every namespace from going.
_INSTALLED = (
    "Namespace",
    "Secret",
    "CustomResourceDefinition",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
)
_WEBHOOKS = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
_WEBHOOK_SERVICE = "kueue-webhook-service"
_WEBHOOK_SECRET = "kueue-webhook-server-cert"


@contextlib.contextmanager
def kueue(kube: Kube, made: Path) -> Iterator[Path]:
    """Install Kueue and run its manager, whose log is returned; leave nothing, not even of a test that was killed."""
    with _taken_away(kube), tempfile.TemporaryDirectory(prefix="kprof-kueue-") as folder:
        webhook, probe = _free_ports(2)
        with step("install Kueue"):
            _install(kube, made / "install.yaml", webhook)
        with _manager(kube, made / "kueue", Path(folder), webhook, probe) as log:
            yield log


def program(where: Layout) -> Path:
    """Return the folder of the manager and its installation, made if the cache lacks it (four minutes on two cores).

    Raises MissingError where that is not possible.
    """
    target = where.cache / f"kueue-{KUEUE.version}"
    if target.is_dir():
        return target
    kubectl = binaries.build_all(where).kubectl
    with step(f"build {target.name}"):
        return binaries.into_cache(target, lambda folder: _make(kubectl, folder))


def _make(kubectl: Path, folder: Path) -> None:
    binaries._go_build(KUEUE, folder)
    module = run(["go", "list", "-m", "-f", "{{.Dir}}", KUEUE.module], cwd=HERE / "go" / KUEUE.name).strip()
    (folder / "install.yaml").write_text(run([kubectl, "kustomize", f"{module}/config/default"]))


def _install(kube: Kube, file: Path, port: int) -> None:
    documents = [item for item in yaml.load_all(file.read_text(), yaml.CSafeLoader) if item["kind"] in _INSTALLED]
    for document in documents:
        hooks = document.get("webhooks", [])
        if document["kind"] == "CustomResourceDefinition":
            hooks = [hook for hook in [document["spec"].get("conversion", {}).get("webhook")] if hook]
        for hook in hooks:
            hook["clientConfig"]["service"]["port"] = port
    # The name that Kueue's certificate is for leads to this machine's end of the bed's link; no name service is asked.
    service = {"type": "ExternalName", "externalName": HOST_IP}
    metadata = {"name": _WEBHOOK_SERVICE, "namespace": NAMESPACE}
    documents.append({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service})
    apply(kube, *documents)
    definitions = [item["metadata"]["name"] for item in documents if item["kind"] == "CustomResourceDefinition"]
    kube.call("wait", "crd", *definitions, "--for=condition=Established", f"--timeout={GONE_S:.0f}s")


@contextlib.contextmanager
def _manager(kube: Kube, program: Path, folder: Path, webhook: int, probe: int) -> Iterator[Path]:
    certificates, config, log = folder / "certificates", folder / "config.yaml", folder / "kueue.log"
    certificates.mkdir()
    health = f"{HOST_IP}:{probe}"
    config.write_text(
        json.dumps(
            {
                "apiVersion": "config.kueue.x-k8s.io/v1beta2",
                "kind": "Configuration",
                "namespace": NAMESPACE,
                "health": {"healthProbeBindAddress": health},
                "metrics": {"bindAddress": "0"},
                "webhook": {"host": HOST_IP, "port": webhook, "certDir": str(certificates)},
                "leaderElection": {"leaderElect": False},
                "integrations": {"frameworks": ["batch/job"]},
                "featureGates": {"VisibilityOnDemand": False},
            }
        )
    )
    # A killed test must not leave a manager behind, so the kernel ends it with its parent.
    argv = ["setpriv", "--pdeathsig", "KILL", str(program), f"--config={config}", f"--kubeconfig={kube.kubeconfig}"]
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        with step("Kueue ready"), _explained(log):
            wait_for("it has its certificate", lambda: _going(process, _mount(kube, certificates)), seconds=READY_S)
            wait_for("it is ready", lambda: _going(process, _ready(f"http://{health}/readyz")), seconds=READY_S)
        yield log
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _mount(kube: Kube, folder: Path) -> bool:
    """Write the Secret in which the manager keeps its certificate into a folder, as a kubelet would."""
    data = json.loads(kube.call("get", "secret", _WEBHOOK_SECRET, "--namespace", NAMESPACE, "-o", "json")).get("data")
    if not data:
        return False
    # The manager waits for the certificate only, so the key comes first.
    for name in ("tls.key", "tls.crt"):
        (folder / name).write_bytes(base64.b64decode(data[name]))
    return True


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError):
        return False


def _going(process: subprocess.Popen[bytes], answer: bool) -> bool:
    if process.poll() is not None:
        raise BedError(f"the Kueue manager exited {process.returncode}")
    return answer


@contextlib.contextmanager
def _explained(log: Path) -> Iterator[None]:
    try:
        yield
    except BedError as error:
        raise BedError(f"{error}\n{tail(log)}") from error


@contextlib.contextmanager
def _taken_away(kube: Kube) -> Iterator[None]:
    _take_away(kube)
    try:
        yield
    finally:
        with step("remove Kueue"):
            _take_away(kube)


def _take_away(kube: Kube) -> None:
    """Delete all of Kueue's objects; no manager runs, so its webhooks go first and nobody else takes finalizers off."""
    for kind in _WEBHOOKS:
        kube.call("delete", kind, "--selector", "app.kubernetes.io/name=kueue", "--ignore-not-found")
    definitions = [item for item in kube.items("crd") if item["spec"]["group"].endswith(GROUP)]
    for definition in definitions:
        name = definition["metadata"]["name"]
        kube.call(
            "patch",
            "crd",
            name,
            "--type=merge",
            "--patch",
            '{"spec":{"conversion":{"strategy":"None","webhook":null}}}',
        )
        for item in kube.items(name, "--all-namespaces"):
            if item["metadata"].get("finalizers"):
                where = ["--namespace", item["metadata"]["namespace"]] if "namespace" in item["metadata"] else []
                change = '{"metadata":{"finalizers":null}}'
                kube.call("patch", name, item["metadata"]["name"], *where, "--type=merge", "--patch", change)
    names = [item["metadata"]["name"] for item in definitions]
    if names:
        kube.call("delete", "crd", *names, f"--timeout={GONE_S:.0f}s")
    kube.call("delete", "namespace", NAMESPACE, "--ignore-not-found", f"--timeout={GONE_S:.0f}s")


def apply(kube: Kube, *objects: Object) -> None:
    """Create or change objects."""
    # Server-side: a client-side apply would put the whole schema into an annotation, which is too small for it.
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    kube.call("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=document)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST_IP, 0))
        return [int(each.getsockname()[1]) for each in sockets]
