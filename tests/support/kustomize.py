"""What `kubectl kustomize` makes of a folder of deploy/kubernetes, and the few parts of it we use.

`by_kubectl` asks kubectl. `by_hand` needs no kubectl, so that the manifests are checked everywhere;
a test compares the two where kubectl is.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]
Documents = dict[tuple[str, str], Document]
HASHED = ("ConfigMap", "hub-idle-exporter-options")


def by_kubectl(kubectl: str, folder: Path) -> Documents:
    """Render with kubectl; the hash is taken off the name of the options."""
    command = [kubectl, "kustomize", str(folder)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (named,) = {word for word in text.split() if word.startswith(HASHED[1])} or {""}
    assert named != HASHED[1], "its name changes with what is in it"
    return _by_name(yaml.safe_load_all(text.replace(named, HASHED[1]) if named else text))


def by_hand(folder: Path) -> Documents:
    """Follow `resources`, `configMapGenerator`, `images` and `namespace`."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    found: Documents = {}
    for name in kustomization.get("resources", ()):
        path = folder / name
        found |= by_hand(path) if path.is_dir() else _by_name([yaml.safe_load(path.read_text())])
    for generator in kustomization.get("configMapGenerator", ()):
        _generate(found, folder, generator)
    for document in found.values():
        for image in kustomization.get("images", ()):
            _set_image(document, image)
        if "namespace" in kustomization:
            document["metadata"]["namespace"] = kustomization["namespace"]
    return found


def _by_name(documents: Iterator[Document] | list[Document]) -> Documents:
    return {(one["kind"], one["metadata"]["name"]): one for one in documents}


def _generate(found: Documents, folder: Path, generator: dict[str, Any]) -> None:
    data = {Path(name).name: (folder / name).read_text() for name in generator.get("files", ())}
    for name in generator.get("envs", ()):
        data |= variables(folder / name)
    key = ("ConfigMap", generator["name"])
    metadata: Document = {"name": generator["name"]}
    if "labels" in generator.get("options", {}):
        metadata["labels"] = generator["options"]["labels"]
    if generator.get("behavior") == "merge":
        data = found[key]["data"] | data
    found[key] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def variables(file: Path) -> dict[str, str]:
    """Read a file of `envs`."""
    lines = [line for line in file.read_text().splitlines() if line and line[0] != "#"]
    return dict(line.split("=", 1) for line in lines)


def _set_image(document: Document, image: dict[str, str]) -> None:
    if document["kind"] != "Deployment":
        return
    for container in document["spec"]["template"]["spec"]["containers"]:
        if container["image"].partition(":")[0] == image["name"]:
            name = image.get("newName", image["name"])
            container["image"] = f"{name}:{image['newTag']}"
