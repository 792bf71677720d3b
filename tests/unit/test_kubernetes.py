"""The manifests in deploy/kubernetes: valid for Kubernetes, and one fits the other.

tests/real/test_zero_to_jupyterhub.py runs the exporter as they configure it. No cluster is used.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from documentation import ROOT, blocks, text
from kustomize import Document, by_hand, by_kubectl

from hub_idle_exporter import cli
from hub_idle_exporter.domain.policy import Policy
from hub_idle_exporter.policy_file import parse

PAGE = "docs/kubernetes.md"
FOLDER = ROOT / "deploy" / "kubernetes"
NAME = "hub-idle-exporter"
LABEL = {"app.kubernetes.io/name": NAME}
EXAMPLE = by_hand(FOLDER / "example")
MONITOR = by_hand(FOLDER / "pod-monitor")["PodMonitor", NAME]
DASHBOARD = by_hand(ROOT / "grafana")["ConfigMap", "hub-idle-exporter-dashboard"]
TEMPLATE = EXAMPLE["Deployment", NAME]["spec"]["template"]
POD = TEMPLATE["spec"]
(CONTAINER,) = POD["containers"]
VALUES = yaml.safe_load((ROOT / "deploy/zero-to-jupyterhub/standalone.yaml").read_text())
OLDEST = "1.28"  # of those that the newest release of Zero to JupyterHub runs on


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("document", [*EXAMPLE.values(), DASHBOARD], ids=lambda one: one["kind"])
def test_kubernetes_takes_each_manifest(document: Document, version: str) -> None:
    """A misspelled key is an error; a kind that is not known would be one, too."""
    assert kubernetes_validate.validate(document, version, strict=True)


def test_a_misspelled_key_is_found() -> None:
    wrong = {**EXAMPLE["Service", NAME], "sepc": {}}
    with pytest.raises(kubernetes_validate.ValidationError, match="sepc"):
        kubernetes_validate.validate(wrong, OLDEST, strict=True)


@pytest.mark.parametrize("folder", [FOLDER / "base", FOLDER / "example", ROOT / "grafana"])
def test_kubectl_renders_what_is_checked_here(folder: Path) -> None:
    assert by_kubectl(kubectl(), folder) == by_hand(folder)


def test_kubectl_takes_what_is_commented_out_in_the_example(tmp_path: Path) -> None:
    copy = tmp_path / "kubernetes"
    shutil.copytree(FOLDER, copy)
    file = copy / "example" / "kustomization.yaml"
    switched_on = re.sub(r"^# (?=[a-z]+:|  )", "", file.read_text(), flags=re.MULTILINE)
    assert {"components", "patches"} < yaml.safe_load(switched_on).keys()
    file.write_text(switched_on)
    rendered = by_kubectl(kubectl(), copy / "example")
    network, monitor = rendered.pop(("NetworkPolicy", NAME)), rendered.pop(("PodMonitor", NAME))
    assert rendered == {key: one for key, one in EXAMPLE.items() if key[0] != "NetworkPolicy"}
    (rule,) = network["spec"]["ingress"]
    (namespace,) = rule["from"][0]["namespaceSelector"]["matchLabels"].values()
    assert (namespace, rule["ports"]) == ("prometheus", [{"port": "metrics"}])
    assert monitor["metadata"]["namespace"] == EXAMPLE["Deployment", NAME]["metadata"]["namespace"]


def kubectl() -> str:
    """Find kubectl, which no package of Debian 12 has."""
    path = shutil.which("kubectl")
    if path is None:
        pytest.skip("kubectl is not installed: the manifests are checked without it")
    return path


# ---- the pod -------------------------------------------------------------------------------------


def test_it_may_run_in_a_namespace_that_enforces_the_restricted_standard() -> None:
    """What Kubernetes' pod security standard `restricted` asks for."""
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["runAsUser"] == user_of_the_image() != 0
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    own = CONTAINER["securityContext"]
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert own["readOnlyRootFilesystem"] is True
    assert not {"hostNetwork", "hostPID", "hostIPC"} & POD.keys()
    assert not [port for port in CONTAINER["ports"] if "hostPort" in port]
    assert {kind for volume in POD["volumes"] for kind in volume} == {"name", "secret", "configMap"}


def user_of_the_image() -> int:
    """The last user of the Dockerfile, whose last stage is the exporter's image."""
    return int(re.findall(r"^USER (\d+)", text("Dockerfile"), re.MULTILINE)[-1])


def test_it_has_no_rights_in_the_cluster() -> None:
    account = EXAMPLE["ServiceAccount", NAME]
    assert POD["serviceAccountName"] == NAME
    assert account["automountServiceAccountToken"] is POD["automountServiceAccountToken"] is False
    assert not {kind for kind, _ in EXAMPLE} & {"Role", "ClusterRole", "RoleBinding"}


def test_there_is_one_and_an_old_one_ends_first() -> None:
    spec = EXAMPLE["Deployment", NAME]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_the_variables_of_its_service_are_not_taken_for_options() -> None:
    """Kubernetes would name them HUB_IDLE_EXPORTER_PORT and the like."""
    assert POD["enableServiceLinks"] is False


def test_what_is_mounted_exists_and_is_a_whole_folder() -> None:
    """A file that is mounted by `subPath` never changes."""
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    for mount in CONTAINER["volumeMounts"]:
        assert "subPath" not in mount
        volume = volumes.pop(mount["name"])
        if "configMap" in volume:
            assert ("ConfigMap", volume["configMap"]["name"]) in EXAMPLE
    assert not volumes
    for source in CONTAINER["envFrom"]:
        assert ("ConfigMap", source["configMapRef"]["name"]) in EXAMPLE


def test_the_token_is_the_one_that_the_chart_makes() -> None:
    (secret,) = [volume["secret"] for volume in POD["volumes"] if "secret" in volume]
    (item,) = secret["items"]
    (service,) = VALUES["hub"]["services"]
    assert (secret["secretName"], item["key"]) == ("hub", f"hub.services.{service}.apiToken")
    assert secret["defaultMode"] == 0o440, "read by its group, which is that of the pod"
    assert POD["securityContext"]["fsGroup"]
    assert environment()["API_TOKEN_FILE"] == mounted("token") + item["path"]


def test_the_policy_file_is_where_the_exporter_looks() -> None:
    (key,) = EXAMPLE["ConfigMap", "hub-idle-exporter-policy"]["data"]
    assert environment()["POLICY_FILE"] == mounted("policy") + key


def test_each_option_exists() -> None:
    """A variable of another name is ignored."""
    known = {name for one in cli.cli.params for name in getattr(one, "envvar", None) or ()}
    options = EXAMPLE["ConfigMap", f"{NAME}-options"]["data"].keys()
    assert options | {one["name"] for one in CONTAINER["env"]} <= known


def mounted(volume: str) -> str:
    (path,) = [one["mountPath"] for one in CONTAINER["volumeMounts"] if one["name"] == volume]
    return f"{path}/"


def environment() -> dict[str, str]:
    """The options by their names, of the Deployment itself."""
    return {
        one["name"].removeprefix("HUB_IDLE_EXPORTER_"): one["value"] for one in CONTAINER["env"]
    }


@pytest.mark.parametrize("folder", ["base", "example"])
def test_the_policy_file_is_valid(folder: str) -> None:
    file = FOLDER / folder / "policy.yaml"
    assert parse(file.read_bytes(), str(file), Policy("default", 3600.0))


def test_base_stops_nothing_and_the_example_does() -> None:
    options = [
        by_hand(FOLDER / folder)["ConfigMap", f"{NAME}-options"] for folder in ("base", "example")
    ]
    enforcing = [one["data"].get("HUB_IDLE_EXPORTER_ENFORCE") for one in options]
    assert enforcing == [None, "true"]


# ---- the network ---------------------------------------------------------------------------------


def test_all_that_selects_the_pod_finds_it() -> None:
    policy = EXAMPLE["NetworkPolicy", NAME]["spec"]["podSelector"]["matchLabels"]
    deployment = EXAMPLE["Deployment", NAME]["spec"]["selector"]["matchLabels"]
    service = EXAMPLE["Service", NAME]["spec"]["selector"]
    monitor = MONITOR["spec"]["selector"]["matchLabels"]
    assert policy == deployment == service == monitor == LABEL
    assert LABEL.items() <= TEMPLATE["metadata"]["labels"].items()


def test_each_port_that_is_named_exists_and_is_the_one_listened_on() -> None:
    (port,) = CONTAINER["ports"]
    assert environment()["WEB_LISTEN_ADDRESS"] == f":{port['containerPort']}"
    (service,) = EXAMPLE["Service", NAME]["spec"]["ports"]
    (endpoint,) = MONITOR["spec"]["podMetricsEndpoints"]
    (ingress,) = EXAMPLE["NetworkPolicy", NAME]["spec"]["ingress"]
    probes = [CONTAINER[probe]["httpGet"]["port"] for probe in ("livenessProbe", "readinessProbe")]
    named = [service["targetPort"], endpoint["port"], ingress["ports"][0]["port"], *probes]
    assert named == [port["name"]] * 5
    assert service["port"] == port["containerPort"]
    annotations = TEMPLATE["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])


def test_a_pod_whose_data_is_stale_is_still_scraped() -> None:
    assert EXAMPLE["Service", NAME]["spec"]["publishNotReadyAddresses"] is True


def test_the_charts_network_policies_let_it_in() -> None:
    for to in ("hub", "singleuser"):
        assert TEMPLATE["metadata"]["labels"][f"hub.jupyter.org/network-access-{to}"] == "true"


def test_it_reaches_the_hub_the_users_servers_and_dns_and_nothing_else() -> None:
    allowed: dict[str, list[int]] = {}
    for rule in EXAMPLE["NetworkPolicy", NAME]["spec"]["egress"]:
        (to,) = rule.get("to", [{"podSelector": {"matchLabels": {"": "anywhere"}}}])
        (component,) = to["podSelector"]["matchLabels"].values()
        allowed[component] = [port["port"] for port in rule["ports"]]
    assert allowed == {"anywhere": [53, 53], "hub": [8081], "singleuser-server": [8888]}
    url = EXAMPLE["ConfigMap", f"{NAME}-options"]["data"]["HUB_IDLE_EXPORTER_URL"]
    assert url == "http://hub:8081/hub/api"


# ---- what Prometheus and Grafana get ------------------------------------------------------------


def test_the_command_of_the_page_makes_a_rule_of_the_repositorys_own_file() -> None:
    lines = "\n".join(code for _, code in blocks("sh", [PAGE])).splitlines()
    (line,) = [line for line in lines if "prometheus/rules.yml" in line]
    made = line.partition(" | kubectl")[0]
    output = subprocess.run(["bash", "-c", made], cwd=ROOT, check=True, capture_output=True).stdout
    rule = yaml.safe_load(output)
    assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(text("prometheus/rules.yml"))


def test_the_dashboard_is_the_repositorys_own_and_fits_into_a_config_map() -> None:
    ((name, dashboard),) = DASHBOARD["data"].items()
    assert dashboard == (ROOT / "grafana" / "dashboards" / name).read_text()
    assert len(dashboard.encode()) < 2**20
    # Larger than what `kubectl apply` keeps in an annotation: only the server can apply it.
    (line,) = [
        line
        for _, code in blocks("sh", [PAGE])
        for line in code.splitlines()
        if "-k grafana" in line
    ]
    assert "--server-side" in line


def test_the_pod_monitor_is_of_the_operators_api() -> None:
    assert (MONITOR["apiVersion"], MONITOR["kind"]) == ("monitoring.coreos.com/v1", "PodMonitor")
    assert MONITOR["spec"].keys() == {"selector", "podMetricsEndpoints"}
    (endpoint,) = MONITOR["spec"]["podMetricsEndpoints"]
    assert endpoint.keys() == {"port", "path", "relabelings"}


def test_all_say_the_same_version() -> None:
    tags: set[Any] = set()
    for folder in ("base", "example"):
        kustomization = yaml.safe_load((FOLDER / folder / "kustomization.yaml").read_text())
        tags |= {image["newTag"] for image in kustomization["images"]}
    assert len(tags) == 1
    assert CONTAINER["image"] == f"{NAME}:{tags.pop()}"
