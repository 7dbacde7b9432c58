"""The old place of `mechspex.core.json_values`."""

from mechspex.core.json_values import plain as plain
from mechspex.core.json_values import plain_rows as plain_rows
from mechspex.core.json_values import write_json as write_json
