"""An MCP server over stdio with one tool, `note`, which says where the server runs; `python -I FILE`.

Without -I, what lies beside it would stand for modules of the standard library.
"""

import json
import sys
from pathlib import Path
from typing import Any

TOOL = {"name": "note", "description": "takes a note", "inputSchema": {"type": "object", "properties": {}}}


def result(method: str, params: dict[str, Any]) -> dict[str, Any]:
    match method:
        case "initialize":
            about = {"name": "notes", "version": "1"}
            version = params["protocolVersion"]
            return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about}
        case "tools/list":
            return {"tools": [TOOL]}
        case "tools/call":
            return {"content": [{"type": "text", "text": f"noted in {Path.cwd()}"}]}
        case _:
            return {}


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            made = result(message["method"], message.get("params") or {})
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": made}), flush=True)


if __name__ == "__main__":
    main()
