"""The directories: where Claude works, where the daemon and Claude keep what they know."""

import os
from collections.abc import Iterator
from pathlib import Path

from claude_coded.check import probes
from claude_coded.check.findings import Finding, Machine, Mark
from claude_coded.claude.launch import projects_directory


def workspaces(machine: Machine) -> Iterator[Finding]:
    """Look at where Claude works: the workspace, and those of models of the operator's."""
    yield _workspace("workspace", "WORKSPACE_DIR", machine.settings.claude.workspace)
    for model in machine.settings.models:
        if model.workspace is not None:
            yield _workspace(f"workspace of {model.name}", "its workspace", model.workspace)


def _workspace(item: str, variable: str, path: Path) -> Finding:
    if not path.is_dir():
        return Finding(item, Mark.FAILED, f"{path} is no directory", f"make it, or set {variable} to another")
    advice = f"let that user in, or set {variable} to another directory"
    if not os.access(path, os.R_OK | os.X_OK, effective_ids=True):
        return Finding(item, Mark.FAILED, f"{path}: it cannot be read by {probes.user()}", advice)
    if problem := probes.obstacle(path):
        return Finding(item, Mark.FAILED, f"{path}: {problem}", advice)
    return Finding(item, Mark.OK, str(path))


def state(machine: Machine) -> Iterator[Finding]:
    """Look at where the daemon keeps its database."""
    directory = machine.settings.state_dir
    if problem := probes.obstacle(directory):
        advice = "let that user write there, or set CLAUDE_CODED_STATE_DIR to another directory"
        yield Finding("state", Mark.FAILED, f"{directory}: {problem}", advice)
    elif machine.running:
        yield Finding("state", Mark.OK, f"{directory} is in use: the daemon runs")
    else:
        yield Finding("state", Mark.OK, f"{directory}{'' if directory.exists() else ', to be made'}")


def home(machine: Machine) -> Iterator[Finding]:
    """Look at where Claude keeps its sessions."""
    directory = projects_directory(machine.worker_environment)
    if problem := probes.obstacle(directory):
        advice = "set HOME to a directory of that user's"
        yield Finding("home", Mark.FAILED, f"Claude's sessions in {directory}: {problem}", advice)
    else:
        yield Finding("home", Mark.OK, f"Claude's sessions in {directory}")
