# SPDX-License-Identifier: Apache-2.0
"""The chart: what it makes holds together, and the configurations in it are accepted by the programs that run
them. Where there is a helm it must make the same of it.
"""

import shutil
import subprocess

import pytest
import yaml

from harness.chart import Chart
from harness.process import ROOT, program

CHART = ROOT / "helm" / "tailrace"


def pod_of(o):
    return o["spec"]["template"]


def config_of(objects, role):
    return objects["ConfigMap", f"r1-{role}"]["data"]["config.yaml"]


@pytest.fixture(scope="module")
def objects():
    return Chart(CHART).objects()


@pytest.mark.parametrize("role", ["agent", "gateway"])
def test_configuration_is_valid(tmp_path, objects, role):
    path = tmp_path / "config.yaml"
    path.write_text(config_of(objects, role))
    done = subprocess.run([program(f"tailrace-{role}"), "--config", path, "validate"],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


def test_kinds(objects):
    assert set(objects) == {
        ("ServiceAccount", "r1-agent"), ("ConfigMap", "r1-agent"), ("DaemonSet", "r1-agent"),
        ("ServiceAccount", "r1-gateway"), ("ConfigMap", "r1-gateway"), ("Service", "r1-gateway"),
        ("StatefulSet", "r1-gateway"), ("PodDisruptionBudget", "r1-gateway")}


def test_agents_find_gateways_by_the_headless_services_name(objects):
    service, pods = objects["Service", "r1-gateway"], objects["StatefulSet", "r1-gateway"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= pod_of(pods)["metadata"]["labels"].items()
    assert pods["spec"]["serviceName"] == service["metadata"]["name"]
    agent = yaml.safe_load(config_of(objects, "agent"))
    assert agent["exporters"]["load_balancing"]["resolver"]["dns"]["hostname"] == "r1-gateway.ns.svc"
    # Every port of the service is one of the container's, and the configuration listens on it.
    container = pod_of(pods)["spec"]["containers"][0]
    named = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert {p["name"]: p["port"] for p in service["spec"]["ports"]}.items() <= named.items()
    gateway = yaml.safe_load(config_of(objects, "gateway"))
    listens = {"otlp-grpc": gateway["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"],
               "otlp-http": gateway["receivers"]["otlp"]["protocols"]["http"]["endpoint"],
               "metrics": gateway["exporters"]["prometheus"]["endpoint"],
               "health": gateway["extensions"]["health_check"]["endpoint"]}
    for name, endpoint in listens.items():
        assert endpoint == f"0.0.0.0:{named[name]}"


@pytest.mark.parametrize("kind, name", [("DaemonSet", "r1-agent"), ("StatefulSet", "r1-gateway")])
def test_pods(objects, kind, name):
    o = objects[kind, name]
    pod = pod_of(o)
    assert o["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert pod["spec"]["serviceAccountName"] == name and ("ServiceAccount", name) in objects
    assert pod["spec"]["automountServiceAccountToken"] is False  # nothing asks the API server
    container, = pod["spec"]["containers"]
    assert {v["name"] for v in container["volumeMounts"]} == {v["name"] for v in pod["spec"]["volumes"]}
    ports = {p["name"] for p in container["ports"]}
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]
    security = container["securityContext"]
    assert security["capabilities"]["drop"] == ["ALL"] and security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True and "privileged" not in security


def test_privileges(objects):
    gateway = pod_of(objects["StatefulSet", "r1-gateway"])["spec"]
    assert gateway["securityContext"]["runAsNonRoot"] is True
    assert not gateway.get("hostNetwork") and not gateway.get("hostPID")
    assert "add" not in gateway["containers"][0]["securityContext"]["capabilities"]
    agent = pod_of(objects["DaemonSet", "r1-agent"])["spec"]
    assert agent["hostPID"] and agent["hostNetwork"] and agent["dnsPolicy"] == "ClusterFirstWithHostNet"
    added = set(agent["containers"][0]["securityContext"]["capabilities"]["add"])
    assert "SYS_ADMIN" not in added and {"BPF", "PERFMON"} <= added


def test_a_changed_configuration_rolls_the_pods(objects):
    other = Chart(CHART, {"gateway": {"config": {"processors": {"tail_sampling": {"decision_wait": "5s"}}}}})
    for role, kind, changes in (("agent", "DaemonSet", False), ("gateway", "StatefulSet", True)):
        sums = [pod_of(o[kind, f"r1-{role}"])["metadata"]["annotations"]["checksum/config"]
                for o in (objects, other.objects())]
        assert (sums[0] != sums[1]) == changes


def test_scaling(objects):
    assert objects["StatefulSet", "r1-gateway"]["spec"]["replicas"] == 3
    five = Chart(CHART, {"gateway": {"replicas": 5}}).objects()
    assert five["StatefulSet", "r1-gateway"]["spec"]["replicas"] == 5
    scaled = Chart(CHART, {"gateway": {"autoscaling": {"enabled": True, "maxReplicas": 8}}}).objects()
    assert "replicas" not in scaled["StatefulSet", "r1-gateway"]["spec"]
    scaler = scaled["HorizontalPodAutoscaler", "r1-gateway"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == "r1-gateway" and scaler["maxReplicas"] == 8
    assert not [k for k in Chart(CHART, {"agent": {"enabled": False}}).objects() if k[1] == "r1-agent"]


def test_helm_makes_the_same_of_it(objects):
    if not shutil.which("helm"):
        pytest.skip("there is no helm on this machine")
    subprocess.run(["helm", "lint", "--strict", CHART], check=True, capture_output=True, timeout=60)
    done = subprocess.run(["helm", "template", "r1", CHART, "--namespace", "ns"], check=True,
                          capture_output=True, text=True, timeout=60)
    made = {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(done.stdout) if o}
    for role in ("agent", "gateway"):  # the same configuration, keys in another order
        key = "ConfigMap", f"r1-{role}"
        assert yaml.safe_load(made[key]["data"].pop("config.yaml")) == yaml.safe_load(config_of(objects, role))
    assert set(made) == set(objects)
    for key, o in made.items():
        if key[0] in ("DaemonSet", "StatefulSet"):
            pod_of(o)["metadata"].pop("annotations")
            mine = yaml.safe_load(yaml.safe_dump(objects[key]))
            pod_of(mine)["metadata"].pop("annotations")
            assert o == mine, key
