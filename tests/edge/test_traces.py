"""The script that docs/traces.md shows."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "docs" / "trace.py"


def test_one_trace_from_curl_through_envoy_to_the_commit() -> None:
    """The call is below curl's span, the commit below the call, and each of the two has a link to the other."""
    ran = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=120, check=True)
    curl, call, commit, *parts = ran.stdout.splitlines()
    assert re.fullmatch(r"curl with traceparent 00-[0-9a-f]{32}-[0-9a-f]{16}-01", curl)
    call_id, commit_id = call.split()[1], commit.split()[1]
    assert call.startswith("  headgate.v1.IngestService/BatchIngest ")
    assert call.endswith(f"accepted=1 rejected=1 links -> {commit_id}")
    assert commit.startswith("    commit ")
    assert commit.endswith(f"events=2 calls=1 links -> {call_id}")
    assert [line.split()[1] for line in parts] == ["lock", "look_up", "settle", "write", "commit"]
    assert all(line.startswith("      commit ") for line in parts)
