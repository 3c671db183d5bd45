"""Credentials of a kubeconfig context or of the pod kprof runs in; the only importer of the client library."""

import asyncio
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import yaml
from kubernetes import config as kube_config
from kubernetes.client import Configuration
from kubernetes.config.config_exception import ConfigException

from orchestrator.cluster.kubernetes.login import within_limit, within_limit_async
from orchestrator.errors import ClusterError

_IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the API server is, the context's name, and the namespace to work in."""

    host: str
    context: str
    namespace: str


class Credentials:
    """Gives the headers of each request; many callers share one refresh, and a failed one is an error."""

    def __init__(self, kubeconfig: str | None, context: str | None, namespace: str | None) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._lock = asyncio.Lock()
        self.accepted = False  # whether the API server ever took them
        self.in_cluster = kubeconfig is None and "KUBECONFIG" not in os.environ and (_IN_CLUSTER / "token").exists()
        self._config, self._tls = within_limit(self._load)
        self.endpoint = self._endpoint(namespace)

    def _load(self) -> tuple[Configuration, ssl.SSLContext | bool]:
        try:
            config = self._configuration()
            return config, _tls(config)
        except OSError as error:
            words = f"kubeconfig: a certificate or key cannot be loaded: {error.strerror or type(error).__name__}"
            raise ClusterError(words, remedy="run the context's login command again") from error
        finally:
            _remove_files()

    def _configuration(self) -> Configuration:
        config = Configuration(proxy="")  # that of the environment is looked up below, with NO_PROXY
        try:
            if self.in_cluster:
                kube_config.load_incluster_config(client_configuration=config)
            else:
                kube_config.load_kube_config(self._kubeconfig, self._context, config, persist_config=False)
        except (ConfigException, yaml.YAMLError, OSError, ValueError, KeyError, TypeError) as error:
            words = " ".join(str(error).split()) or type(error).__name__
            file = self._kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
            if not any(Path(name).expanduser().exists() for name in file.split(os.pathsep) if name):
                words = "there is no such file"
            raise ClusterError(
                f"kubeconfig {file}: {words}", remedy="name another with --kubeconfig or --context"
            ) from error
        known = config.api_key or config.cert_file or config.username
        if config.host.startswith("https") and not known:
            # The library logs a failing exec plugin and goes on as nobody.
            raise ClusterError("kubeconfig: the context gives no credentials", remedy="run its login command first")
        return config

    def _endpoint(self, namespace: str | None) -> Endpoint:
        try:
            server = urlsplit(self._config.host)
        except ValueError as error:
            raise ClusterError(f"kubeconfig: the server's URL: {error}", remedy="mend `server:`") from error
        if server.username or server.password:
            raise ClusterError("kubeconfig: the server's URL holds a password", remedy="put it under `users:`")
        if self.in_cluster:
            own = (_IN_CLUSTER / "namespace").read_text(encoding="utf-8").strip()
            return Endpoint(self._config.host, "in-cluster", namespace or own)
        contexts, active = kube_config.list_kube_config_contexts(self._kubeconfig)
        chosen = next((item for item in contexts if item["name"] == self._context), active)
        configured = (chosen.get("context") or {}).get("namespace")
        return Endpoint(self._config.host.rstrip("/"), str(chosen["name"]), namespace or configured or "default")

    async def headers(self, *, renew: bool = False) -> dict[str, str]:
        """Return the authorization header, empty for client certificates; `renew` loads everything anew."""
        async with self._lock:
            if renew:
                await self._renew()
            if getattr(self._config, "refresh_api_key_hook", None) is None:
                token = self._config.get_api_key_with_prefix("BearerToken")
            else:
                token = await within_limit_async(lambda: self._config.get_api_key_with_prefix("BearerToken"))
            if token is None:
                token = self._config.get_api_key_with_prefix("authorization")
            if token is None and self._config.username:
                token = self._config.get_basic_auth_token()
            return {} if not token else {"Authorization": token}

    async def _renew(self) -> None:
        try:
            self._config, self._tls = await within_limit_async(self._load)
        except (ClusterError, TimeoutError) as error:
            if not self.accepted:
                raise
            # They worked before: the login server may be away, and that is transport trouble as any other.
            raise ConnectionError(str(error)) from error

    def route(self) -> dict[str, str]:
        """Return how requests get to the API server, as aiohttp's options: a proxy, another name in its certificate."""
        config = self._config
        named = {"proxy": config.proxy or self._proxy_of_environment(), "server_hostname": config.tls_server_name}
        return {option: str(value) for option, value in named.items() if value}

    def _proxy_of_environment(self) -> str | None:
        """Return the proxy that the environment names for the API server; aiohttp's own look reads ~/.netrc as well."""
        host = urlsplit(self.endpoint.host)
        if proxy_bypass(host.netloc.rpartition("@")[2]):
            return None
        return getproxies().get(host.scheme)

    def tls(self) -> ssl.SSLContext | bool:
        """Return the TLS context of the connections to come; True where the server speaks plain HTTP.

        Renewed credentials have a new one: a connection keeps the client certificate that it was opened with.
        """
        return self._tls


def _tls(config: Configuration) -> ssl.SSLContext | bool:
    if not config.host.startswith("https"):
        return True
    context = ssl.create_default_context(cafile=config.ssl_ca_cert, cadata=config.ca_cert_data)
    # Python 3.13 asks for key identifiers and more, which the certificates of many clusters lack; kubectl does not.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if config.cert_file:
        context.load_cert_chain(config.cert_file, config.key_file)
    if not config.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _remove_files() -> None:
    """Remove the files that the library made of a kubeconfig's data, a private key among them.

    It would do so when the process ends, and a killed one does not.
    """
    kube_config.kube_config._cleanup_temp_files()  # noqa: SLF001 - there is no other door
