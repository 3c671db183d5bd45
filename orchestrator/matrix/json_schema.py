"""The JSON schema of a matrix, for editors: `python -m orchestrator.matrix.json_schema > matrices/schema.json`."""

import json
import sys

from orchestrator.matrix.schema import Matrix


def schema_text() -> str:
    """Return the schema as the checked-in file holds it."""
    schema = Matrix.model_json_schema(by_alias=True)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "kprof matrix"}
    return json.dumps(head | {key: value for key, value in schema.items() if key != "title"}, indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
