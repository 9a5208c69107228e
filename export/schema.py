"""Write `bundle.schema.json`, the JSON schema of `manifest.json`, from the models in cled_edge/bundle/manifest.py.

python -m export.schema
"""

from pathlib import Path

from cled_edge.bundle.manifest import Manifest
from cled_edge.json_text import json_of

SCHEMA_FILE = Path(__file__).parent / "bundle.schema.json"


def schema_text() -> str:
    """Return the schema as the file holds it."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}
    return json_of(schema)


def main() -> None:
    """Write the schema beside this file."""
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
    print(f"wrote {SCHEMA_FILE}")


if __name__ == "__main__":
    main()
