"""Dockerfile, compose file, systemd unit and Helm chart: read by real tools, and all of it runs what there is."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from helm_python import Chart, HelmError, chart
from packaging.requirements import Requirement

from sonic_ms.cli import build_parser
from tests.test_docs import refuse

pytestmark = [pytest.mark.slow]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "sonic-ms"
COMPOSE = ROOT / "deploy" / "compose" / "compose.yaml"
UNIT = ROOT / "deploy" / "systemd" / "sonic-ms.service"
KUBERNETES = ("1.29", "1.37")  # the oldest that is looked at, and the newest that the validator knows

CLUSTER = {
    "database": {"url": "postgresql://sonic@postgres/sonic", "passwordSecret": "postgres"},
    "files": {"url": "s3://videos/sonic", "endpoint": "http://s3:9000", "secret": "s3"},
    "replicas": 3,
}
NPU = {"resource": "huawei.com/Ascend310P", "count": 1, "soc": "Ascend310P3"}
SETTINGS = {
    "plain": {"firstTenant": "studio"},
    "one box with an NPU": {"workers": {"npu": NPU}, "flags": ["--engine=acl", "--bundle=/bundles/edge"],
                            "volumes": [{"name": "bundles", "hostPath": {"path": "/bundles"}}],
                            "volumeMounts": [{"name": "bundles", "mountPath": "/bundles"}]},
    "servers": {**CLUSTER, "firstTenant": "studio", "ingress": {"enabled": True, "host": "a.example", "tlsSecret": "t"},
                "otlpEndpoint": "http://collector:4318"},
    "ray": {**CLUSTER, "workers": {"kind": "ray", "npu": NPU}},
    "kuberay": {**CLUSTER, "workers": {"kind": "ray", "npu": NPU, "ray": {"kuberay": True}}},
    "ray without an NPU": {**CLUSTER, "workers": {"kind": "ray"}},
    "somebody's ray": {**CLUSTER, "workers": {"kind": "ray", "ray": {"address": "ray://theirs:10001"}}},
}  # fmt: skip
every_setting = pytest.mark.parametrize("setting", SETTINGS)


def render(values):
    """[resource] of the chart."""
    with Chart.load(CHART) as loaded:
        texts = loaded.render(values, name="demo")
    documents = [one for name, text in texts.items() if name.endswith(".yaml") for one in yaml.safe_load_all(text)]
    return [one for one in documents if one]


def pods(resources):
    """[(name, pod template)] of everything that makes pods."""
    for one in resources:
        if one["kind"] in ("Deployment", "Job"):
            yield one["metadata"]["name"], one["spec"]["template"]
        elif one["kind"] == "RayCluster":
            groups = [one["spec"]["headGroupSpec"], *one["spec"]["workerGroupSpecs"]]
            yield from (("ray-" + group.get("groupName", "head"), group["template"]) for group in groups)


def containers(resources):
    for name, pod in pods(resources):
        for container in pod["spec"]["containers"]:
            yield name, container


def problem_of(words):
    """What `sonic-ms` says against its arguments, or None."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("argparse.ArgumentParser.error", refuse)
            build_parser().parse_args(list(words))
    except ValueError as error:
        return str(error)
    except SystemExit:  # --help
        return None


def commands():
    """[(where, arguments of sonic-ms)] in all files."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    found = [("Dockerfile", json.loads(line)) for line in re.findall(r"^CMD (\[.*\])", dockerfile, re.M)]
    found += [("unit", shlex.split(line)[1:]) for line in re.findall(r"^ExecStart=(.*)", UNIT.read_text(), re.M)]
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    found += [(name, one["command"]) for name, one in services.items() if "sonic-ms" in one["image"]
              and "entrypoint" not in one]  # fmt: skip
    for setting, values in SETTINGS.items():
        found += [(f"{setting}: {name}", one["args"]) for name, one in containers(render(values))
                  if "args" in one and "command" not in one]  # fmt: skip
    for path in (COMPOSE, UNIT):  # those that the comments tell
        for line in re.findall(r"^#   (.*)", path.read_text(), re.M):
            if found_command := re.search(r"(?:sonic-ms|run --rm \w+) (keys .*)", line):
                found.append((path.name, shlex.split(found_command[1])))
    return found


def test_every_command_is_one_that_sonic_ms_knows():
    found = commands()
    assert len(found) >= 16 and {"service", "server", "unit", "Dockerfile"} <= {where for where, _ in found}
    assert not [(where, why) for where, words in found if (why := problem_of(words))]
    assert problem_of(["serve", "--no-such-flag"]) and problem_of(["keys", "ad", "studio"])


# -- Helm


def test_the_chart_has_nothing_for_lint_to_say():
    found = chart.lint(CHART)
    assert not found["errors"] and not [one for one in found["messages"] if one["severity"] > 1], found  # 1: advice


@every_setting
def test_what_the_chart_makes_is_kubernetes(setting):
    resources = render(SETTINGS[setting])
    for version in KUBERNETES:
        for one in resources:
            if one["kind"] != "RayCluster":  # not Kubernetes' own, but its pods are
                kubernetes_validate.validate(one, version, strict=True)
        for name, pod in pods(resources):
            whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod["spec"]}
            kubernetes_validate.validate(whole, version, strict=True)
    names = [(one["kind"], one["metadata"]["name"]) for one in resources]
    assert len(names) == len(set(names))


def test_the_validator_sees_a_wrong_type():
    service = next(one for one in render({}) if one["kind"] == "Service")
    service["spec"]["ports"][0]["port"] = "http"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, KUBERNETES[0], strict=True)


@every_setting
def test_pods_may_little(setting):
    for name, pod in pods(render(SETTINGS[setting])):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 1000, name
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"], name
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert {"tmp", "data"} <= mounted <= {volume["name"] for volume in spec["volumes"]}


@every_setting
def test_requests_are_limits_and_who_has_no_npu_sees_none(setting):
    seen = 0
    for name, container in containers(render(SETTINGS[setting])):
        resources = container["resources"]
        assert resources["requests"] == resources["limits"], name
        has = any(key.startswith("huawei.com/") for key in resources["limits"])
        environment = {one["name"]: one.get("value") for one in container.get("env", [])}
        assert (environment.get("ASCEND_VISIBLE_DEVICES") == "void") is not has, name
        seen += has
    wanted = SETTINGS[setting].get("workers", {}).get("npu", {}).get("count", 0)
    assert seen == wanted


def test_a_server_says_when_it_is_ready_and_has_time_to_end():
    (server,) = [one for one in render({}) if one["kind"] == "Deployment"]
    spec = server["spec"]["template"]["spec"]
    container = spec["containers"][0]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    from sonic_ms.serve import process, run

    ends = run.KEEP_OPEN + process.GRACE + float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] >= 2 * ends
    assert server["spec"]["strategy"]["type"] == "Recreate"  # one server a folder


def test_ray_is_reached_where_it_is():
    for setting in ("ray", "kuberay"):
        resources = render(SETTINGS[setting])
        (arguments,) = [one["args"] for _, one in containers(resources) if one["name"] == "server"]
        (address,) = [one.partition("=")[2] for one in arguments if one.startswith("--ray-address")]
        if setting == "ray":
            (head,) = [one for one in resources if one["kind"] == "Service" and "head" in one["metadata"]["name"]]
            assert address == f"ray://{head['metadata']['name']}:{head['spec']['ports'][1]['port']}"
        else:  # the operator names the service after the cluster
            (cluster,) = [one for one in resources if one["kind"] == "RayCluster"]
            assert address == f"ray://{cluster['metadata']['name']}-head-svc:10001"
    started = next(one for name, one in containers(render(SETTINGS["ray"])) if one["name"] == "ray-worker")["args"]
    assert '--resources={"NPU":1}' in started and "--labels=soc=Ascend310P3" in started
    cluster = next(one for one in render(SETTINGS["kuberay"]) if one["kind"] == "RayCluster")
    parameters = cluster["spec"]["workerGroupSpecs"][0]["rayStartParams"]
    assert json.loads(shlex.split(parameters["resources"])[0]) == {"NPU": 1}  # through a shell, as KubeRay does
    assert all(isinstance(value, str) for value in parameters.values())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"replicas": 2}, "need database.url and files.url"),
        ({"workers": {"kind": "ray"}}, "need database.url and files.url"),
        ({"workers": {"kind": "celery"}}, "workers/kind"),
        ({"database": {"url": "mysql://x"}}, "database/url"),
        ({"ingress": {"enabled": True}}, "ingress.host"),
    ],
)
def test_values_that_cannot_be_are_refused(values, words):
    with pytest.raises(HelmError, match=words):
        render(values)


# -- Docker, compose, systemd


def test_hadolint_has_nothing_to_say():
    done = subprocess.run([shutil.which("hadolint"), "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


def test_the_image_has_what_the_package_needs():
    """--no-deps leaves MindSpore out; nothing else may be missing, and what is copied is let through."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    setup = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)
             and isinstance(node.targets[0], ast.Name)}  # fmt: skip
    needed = [*ast.literal_eval(setup["REQUIRES"]), *ast.literal_eval(setup["EXTRAS"])["serve"]]
    dockerfile = (ROOT / "Dockerfile").read_text()
    pinned = {
        name.lower(): version for name, version in re.findall(r'^ +"?([\w.-]+)(?:\[.*\])?==([\w.]+)', dockerfile, re.M)
    }
    for text in needed:
        one = Requirement(text)
        if one.name != "mindspore":
            assert pinned.get(one.name.lower()) in one.specifier, text
    copied = {name for line in re.findall(r"^COPY (.*) \S+$", dockerfile, re.M) for name in line.split()}
    let = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.M)
    assert copied == set(let)
    assert {"sonic_ms", "convert", "configs"} <= copied  # of package_dir


@pytest.mark.needs("docker-compose")
def test_compose_reads_its_file():
    environment = {**os.environ, "POSTGRES_PASSWORD": "p", "S3_PASSWORD": "secretsecret"}
    done = subprocess.run(["docker-compose", "-f", COMPOSE, "--profile", "cluster", "config"], capture_output=True,
                          text=True, env=environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert set(services) == {"service", "server", "proxy", "postgres", "s3", "bucket"}
    for name in ("service", "server", "bucket"):
        assert services[name]["read_only"] and services[name]["cap_drop"] == ["ALL"], name
    assert {"profiles" in one for name, one in services.items() if name != "service"} == {True}
    assert "profiles" not in services["service"]
    assert all(str(port).startswith("127.0.0.1:") for one in services.values() for port in one.get("ports", []))


@pytest.mark.needs("systemd-analyze")
def test_systemd_reads_its_unit(tmp_path):
    text = UNIT.read_text()
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace("/opt/sonic-ms/bin/sonic-ms", "/bin/true"))  # it wants a program that is there
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--threshold=25", unit],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout  # 2.5 of 10
