"""Container layers and images written as tar files, byte for byte the same for the same content."""

import hashlib
import io
import json
import platform
import tarfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


@dataclass
class Layer:
    """Files of a layer, by their absolute path in the image; all belong to root."""

    _entries: dict[str, tuple[tarfile.TarInfo, Path | bytes | None]] = field(default_factory=dict)

    def __contains__(self, path: str) -> bool:
        """Say whether the layer has an entry of that path."""
        return path in self._entries

    def add_folder(self, path: str, mode: int = 0o755) -> None:
        """Add a folder and those above it."""
        if path == "/" or path in self._entries:
            return
        self.add_folder(str(PurePosixPath(path).parent))
        self._add(path, tarfile.DIRTYPE, mode, None)

    def add_file(self, path: str, source: Path, mode: int | None = None) -> None:
        """Add a copy of a file, following links; the mode is the source's unless given."""
        self.add_folder(str(PurePosixPath(path).parent))
        self._add(path, tarfile.REGTYPE, mode or (source.stat().st_mode & 0o755), source)

    def add_bytes(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Add a file of the given content."""
        self.add_folder(str(PurePosixPath(path).parent))
        self._add(path, tarfile.REGTYPE, mode, content)

    def add_link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self.add_folder(str(PurePosixPath(path).parent))
        self._add(path, tarfile.SYMTYPE, 0o777, None).linkname = target

    def _add(self, path: str, kind: bytes, mode: int, content: Path | bytes | None) -> tarfile.TarInfo:
        info = tarfile.TarInfo(path.lstrip("/"))
        info.type, info.mode, info.uname, info.gname = kind, mode, "root", "root"
        self._entries[path] = (info, content)
        return info

    def write(self, target: Path) -> None:
        """Write the layer as a tar file."""
        with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as out:
            for path in sorted(self._entries):
                info, content = self._entries[path]
                if isinstance(content, Path):
                    info.size = content.stat().st_size
                    with content.open("rb") as data:
                        out.addfile(info, data)
                else:
                    info.size = len(content or b"")
                    out.addfile(info, io.BytesIO(content or b""))


def write_image(target: Path, name: str, layers: list[Path], config: dict[str, object]) -> None:
    """Write an image that both OCI tools and `docker load` take, from layers written above."""
    digests = [_digest_of_file(layer) for layer in layers]
    blobs: dict[str, bytes] = {}

    def blob(kind: str, document: object) -> dict[str, object]:
        content = json.dumps(document, sort_keys=True).encode()
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    settings = blob(
        CONFIG_TYPE,
        {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        },
    )
    parts = [
        {"mediaType": LAYER_TYPE, "digest": f"sha256:{digest}", "size": layer.stat().st_size}
        for digest, layer in zip(digests, layers, strict=True)
    ]
    manifest = blob(
        MANIFEST_TYPE,
        {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": settings, "layers": parts},
    )
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    settings_file = f"blobs/{str(settings['digest']).replace(':', '/')}"
    top: dict[str, object] = {
        "oci-layout": {"imageLayoutVersion": "1.0.0"},
        "index.json": {"schemaVersion": 2, "manifests": [{**manifest, "annotations": names}]},
        "manifest.json": [
            {
                "Config": settings_file,
                "RepoTags": [name],
                "Layers": [f"blobs/sha256/{digest}" for digest in digests],
            }
        ],
    }
    image = Layer()
    for path, document in top.items():
        image.add_bytes(f"/{path}", json.dumps(document).encode())
    for digest, content in blobs.items():
        image.add_bytes(f"/blobs/sha256/{digest}", content)
    for digest, layer in zip(digests, layers, strict=True):
        image.add_file(f"/blobs/sha256/{digest}", layer, 0o644)
    image.write(target)


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
