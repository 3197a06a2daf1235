"""Writes schemas in the form that kubeconform reads, so that it needs no network.

schemas.py OUT VERSION,VERSION CRD.yaml...

OUT/vVERSION-standalone-strict has those of Kubernetes itself, from the package
kubernetes-validate; OUT/crd/GROUP/KIND_VERSION.json those of the custom resources, with
every object closed to fields that it does not name, as the API server prunes them.
"""
import json
import pathlib
import sys

import kubernetes_validate
import yaml

# A lone = is a string, as in Go's YAML, and not YAML 1.1's "value" type.
yaml.SafeLoader.yaml_implicit_resolvers.pop("=", None)


def core(out, version):
    bundled = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    source, target = bundled / f"v{version}-local-strict", out / f"v{version}-standalone-strict"
    if not source.is_dir():
        sys.exit(f"no schemas of Kubernetes {version}; there are {sorted(p.name for p in bundled.iterdir())}")
    target.mkdir(parents=True, exist_ok=True)
    for file in source.glob("*.json"):
        # References are to an absolute path there: make them relative to the file.
        schema = json.loads(file.read_text().replace('"/api/_definitions.json', '"_definitions.json'))
        schema.pop("$id", None)
        (target / file.name).write_text(json.dumps(schema))


def close(node):
    """Refuses unknown fields, and says int-or-string in words that JSON Schema has."""
    if isinstance(node, list):
        for item in node:
            close(item)
    if not isinstance(node, dict):
        return
    open_ended = node.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in node
    if isinstance(node.get("properties"), dict) and node.get("type") == "object" and not open_ended:
        node["additionalProperties"] = False
    if node.pop("x-kubernetes-int-or-string", False):
        node.pop("type", None)
        node.pop("anyOf", None)
        node["oneOf"] = [{"type": "string"}, {"type": "integer"}]
    for value in list(node.values()):
        close(value)


def custom(out, path):
    for document in yaml.safe_load_all(path.read_text()):
        if not document or document.get("kind") != "CustomResourceDefinition":
            continue
        spec = document["spec"]
        folder = out / "crd" / spec["group"]
        folder.mkdir(parents=True, exist_ok=True)
        for version in spec["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            close(schema)
            # What every object has is not described in a CRD.
            schema.setdefault("properties", {})["metadata"] = {"type": "object"}
            name = f"{spec['names']['kind'].lower()}_{version['name']}.json"
            (folder / name).write_text(json.dumps(schema))


def main():
    out, versions, crds = pathlib.Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:]
    for version in versions:
        core(out, version)
    for path in crds:
        custom(out, pathlib.Path(path))


main()
