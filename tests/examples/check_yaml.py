"""The examples that need Docker, without Docker: what they refer to is there, and kiegate takes the settings."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

KIEGATE = sys.argv[1]
EXAMPLES = Path(__file__).parents[2] / "examples"
DOCKERFILE = (EXAMPLES.parent / "Dockerfile").read_text()


def check_settings(environment):
    """kiegate must take the environment of its container."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("KIEGATE_")}
    checked = subprocess.run([KIEGATE, "check"], env={**outside, **environment}, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def check_compose():
    file = EXAMPLES / "docker-compose.tests.yml"
    services = yaml.safe_load(file.read_text())["services"]
    kiegate, tests = services["kiegate"], services["tests"]
    check_settings(kiegate["environment"])
    assert (file.parent / kiegate["build"] / "Dockerfile").exists()
    assert tests["environment"]["KIEGATE_URL"] == "http://kiegate:8787"
    assert tests["depends_on"] == {"kiegate": {"condition": "service_healthy"}} and "HEALTHCHECK" in DOCKERFILE
    folder, inside, _ = tests["volumes"][0].split(":")
    assert inside == tests["working_dir"]
    assert (file.parent / folder / "requirements.txt").exists() and "-r requirements.txt" in tests["command"]


def check_workflow():
    workflow = yaml.safe_load((EXAMPLES / "github-actions" / "tests.yml").read_text())
    # YAML 1.1 takes the key `on` for true.
    assert workflow[True] == ["push", "pull_request"]
    job = workflow["jobs"]["tests"]
    service = job["services"]["kiegate"]
    check_settings(service["env"])
    assert service["ports"] == ["8787:8787"] and "EXPOSE 8787" in DOCKERFILE
    assert job["env"]["KIEGATE_URL"] == "http://127.0.0.1:8787"
    assert all(("uses" in step) != ("run" in step) for step in job["steps"])


check_compose()
check_workflow()
print("examples: the compose file and the workflow are sound")
