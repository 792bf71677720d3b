"""Series as exporters have them: the names, labels and timestamps of their source code.

cAdvisor (`lib/metrics/prometheus.go`, and the kubelet's
`pkg/kubelet/server/testdata/expected-cadvisor-metrics.txt`), kube-state-metrics
(`internal/store/pod.go`), KubeSpawner (`kubespawner/spawner.py`), DockerSpawner, DCGM exporter
(`internal/pkg/rendermetrics/render_metrics.go`), process-exporter
(`collector/process_collector.go`).
Each function writes a world of servers, and says what a query about it is to answer: 0, 1, or None
where no series is about the server.
"""

from collections.abc import Mapping

from prometheus_history import LENGTH, STEP, History

IDLE, BUSY = 0.002, 0.6  # cores
DEAD = -180  # measured until then: inside the window of rate(), past the guard
NAMESPACE = "jupyterhub"

Said = dict[tuple[str, str], float | None]

# ---- Kubernetes ---------------------------------------------------------------------------------

_CPU = "container_cpu_usage_seconds_total"
_KUBELET = {"job": "kubelet", "metrics_path": "/metrics/cadvisor", "endpoint": "https-metrics"}
_STATE = {"job": "kube-state-metrics", "instance": "10.1.0.7:8080"}
_OTHER_STATE = {"job": "kube-state-metrics", "instance": "10.1.0.8:8080"}


def pod(
    history: History,
    user: str,
    server: str = "",
    cores: float = IDLE,
    *,
    labels: tuple[str, str] | None = None,
    name: str = "",
    uid: str = "0a",
    since: int = -LENGTH,
    until: int = 0,
    measured: tuple[int, int] | None = None,
    received: float = 200,
    states: tuple[Mapping[str, str], ...] = (_STATE,),
    phase: str = "Running",
    namespace: str = NAMESPACE,
) -> str:
    """A pod of KubeSpawner, as kube-state-metrics and the kubelet's cAdvisor show it.

    `labels` are user and server as KubeSpawner escapes them, where it does.
    """
    slugs = labels or (user, server)
    name = name or "jupyter-" + "--".join(filter(None, slugs))
    where = {"namespace": namespace, "pod": name}
    for state in states:
        target = {**state, **where, "uid": uid}
        for kind, names in (("annotation", (user, server)), ("label", slugs)):
            keys = (f"{kind}_hub_jupyter_org_username", f"{kind}_hub_jupyter_org_servername")
            whose = {**target, **dict(zip(keys, names, strict=True))}
            history.gauge(f"kube_pod_{kind}s", whose, 1, since, until)
        for each in ("Pending", "Running", "Succeeded", "Failed", "Unknown"):
            is_it = float(each == phase)
            history.gauge("kube_pod_status_phase", {**target, "phase": each}, is_it, since, until)
    _containers(history, where, uid, cores, received, *(measured or (since, until)))
    return name


def _containers(
    history: History,
    where: Mapping[str, str],
    uid: str,
    cores: float,
    received: float,
    since: int,
    until: int,
) -> None:
    """The pod's own cgroup, the pause container with the network, and the notebook."""
    if until <= since:
        return
    cgroup = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice"
    target = {**_KUBELET, "instance": "n1:10250", **where}
    history.counter(_CPU, {**target, "id": cgroup, "cpu": "total"}, cores, since, until)
    for container, name, use in (("POD", f"{uid}aa", 0.0001), ("notebook", f"{uid}bb", cores)):
        scope = {"id": f"{cgroup}/cri-containerd-{name}.scope", "name": name, "cpu": "total"}
        history.counter(_CPU, {**target, **scope, "container": container}, use, since, until)
    pause = {"id": f"{cgroup}/cri-containerd-{uid}aa.scope", "name": f"{uid}aa"}
    network = {**target, **pause, "image": "pause", "interface": "eth0"}
    history.counter("container_network_receive_bytes_total", network, received, since, until)


def gpu(history: History, pod: str, percent: float, until: int = 0, namespace: str = "gpu") -> None:
    """A GPU that a pod has asked for, as DCGM exporter shows it with `honorLabels: false`."""
    holder = {"namespace": NAMESPACE, "pod": pod, "container": "notebook"}
    request = {**_STATE, **holder, "uid": "0a", "node": "g1", "resource": "nvidia_com_gpu"}
    history.gauge("kube_pod_container_resource_requests", {**request, "unit": "integer"})
    exporter = {"job": "dcgm-exporter", "namespace": namespace, "pod": "dcgm-exporter-x2b"}
    device = {"gpu": "0", "UUID": f"GPU-{pod}", "device": "nvidia0", "modelName": "A100"}
    exported = {f"exported_{key}": value for key, value in holder.items()}
    history.gauge("DCGM_FI_DEV_GPU_UTIL", {**exporter, **device, **exported}, percent, until=until)
    honored = {"job": "dcgm-honored", **device, **holder}  # the same with `honor_labels: true`
    history.gauge("DCGM_FI_DEV_GPU_UTIL", honored, percent, until=until)


def kubernetes(history: History) -> None:
    """Pods of all kinds."""
    pod(history, "ana")
    pod(history, "bob", cores=BUSY)
    mail = ("ana-example-com---8e43ca37", "")
    pod(history, "ana@example.com", cores=BUSY, labels=mail)
    pod(history, "Ünïcode", labels=("n-code---00b24be8", ""))
    pod(history, "a-b")
    pod(history, "a-b", "gpu box", BUSY, labels=("a-b", "gpu-box---1f2e3d4c"))
    pod(history, "Ana", name="jupyter-ana---dea210f0")  # a label may have capitals
    # A default server that is idle, with a named one at work whose name is escaped; and idle both.
    pod(history, "zoe")
    pod(history, "zoe", "gpu box", BUSY, labels=("zoe", "gpu-box---1f2e3d4c"))
    pod(history, "yan")
    pod(history, "yan", "gpu box", labels=("yan", "gpu-box---1f2e3d4c"))
    pod(history, "dan", received=2_000_000)  # a download
    pod(history, "eva", measured=(-LENGTH, DEAD))  # the kubelet of the node is gone
    pod(history, "fay")
    pod(history, "fay", "far", BUSY, measured=(-LENGTH, DEAD))
    pod(history, "gus", states=(_STATE, _OTHER_STATE))  # two kube-state-metrics
    # Stopped and started again under the same name: idle until a minute ago, and now at work.
    pod(history, "hal", until=-60)
    pod(history, "hal", cores=BUSY, uid="0b", since=-60)
    # Started again where nobody measures; what was measured of the old one is still there.
    pod(history, "ivy", until=-180)
    pod(history, "ivy", cores=BUSY, uid="0b", since=-180, measured=(-180, -180))
    pod(history, "jan", phase="Failed", measured=(-LENGTH, -300))  # evicted
    pod(history, "stranger", name="jupyter-lou", cores=BUSY, namespace="other")  # of another Hub
    pod(history, "lou")
    gpu(history, pod(history, "kim"), 87)
    gpu(history, pod(history, "lea"), 0)
    gpu(history, pod(history, "max"), 0, until=DEAD)
    hub = {"namespace": NAMESPACE, "pod": "hub-5d"}  # it has no user
    history.gauge("kube_pod_annotations", {**_STATE, **hub})
    history.counter(_CPU, {**_KUBELET, **hub, "id": "/kubepods/hub", "cpu": "total"}, BUSY)


KUBERNETES: Said = {
    ("ana", ""): 0, ("bob", ""): 1, ("ana@example.com", ""): 1, ("Ünïcode", ""): 0, ("a-b", ""): 0,
    ("a-b", "gpu box"): 1, ("Ana", ""): 0, ("zoe", ""): 0, ("zoe", "gpu box"): 1, ("yan", ""): 0,
    ("yan", "gpu box"): 0, ("dan", ""): 0, ("eva", ""): 1, ("fay", ""): 0, ("fay", "far"): 1,
    ("gus", ""): 0, ("hal", ""): 1, ("ivy", ""): 1, ("jan", ""): None, ("lou", ""): 0,
    ("kim", ""): 0, ("lea", ""): 0, ("max", ""): 0,
}  # fmt: skip
# An escaped user has no series; an escaped server speaks for all servers of its user.
BY_LABELS: Said = KUBERNETES | {
    ("ana@example.com", ""): None, ("Ünïcode", ""): None, ("a-b", ""): None,
    ("a-b", "gpu box"): None, ("zoe", ""): 1,
}  # fmt: skip
WITH_NETWORK: Said = KUBERNETES | {("dan", ""): 1}
_GPU: Said = {("kim", ""): 1, ("lea", ""): 0, ("max", ""): 1}
GPU: Said = {**dict.fromkeys(KUBERNETES), **_GPU}
CPU_OR_GPU: Said = KUBERNETES | _GPU

# ---- Docker, systemd ----------------------------------------------------------------------------


def container(
    history: History,
    user: str,
    server: str = "",
    cores: float = IDLE,
    *,
    since: int = -LENGTH,
    until: int = 0,
) -> None:
    """A container of DockerSpawner in cAdvisor, which has a counter for each CPU on cgroup v1."""
    id_ = f"/docker/{user}-{server}-{since}"
    labels = {"job": "cadvisor", "instance": "docker1:8080", "id": id_, "image": "scipy"}
    labels["container_env_jupyterhub_user"] = user
    labels["container_env_jupyterhub_server_name"] = server
    for cpu in ("cpu00", "cpu01"):
        history.counter(_CPU, {**labels, "cpu": cpu}, cores / 2, since, until)


def docker(history: History) -> None:
    """Containers of all kinds."""
    container(history, "ana")
    container(history, "bob", cores=BUSY)
    container(history, "ana@example.com")
    container(history, "Ünïcode", cores=BUSY)
    container(history, "a-b")
    container(history, "a-b", "GPU box", BUSY)
    container(history, "eva", until=DEAD)
    container(history, "hal", until=-60)  # removed, and started again
    container(history, "hal", cores=BUSY, since=-60)
    container(history, "", cores=BUSY)  # the Hub
    for target, is_up in (("docker1:8080", 1), ("docker2:8080", 0)):
        history.gauge("up", {"job": "cadvisor", "instance": target}, is_up)


DOCKER: Said = {
    ("ana", ""): 0, ("bob", ""): 1, ("ana@example.com", ""): 0, ("Ünïcode", ""): 1, ("a-b", ""): 0,
    ("a-b", "GPU box"): 1, ("eva", ""): None, ("hal", ""): 1,
}  # fmt: skip

# unit → cores, and the user about whom it is
_UNITS = {
    "jupyterhub.service": (BUSY, ""),
    "jupyter-ana.service": (IDLE, "ana"),
    "jupyter-bob.service": (BUSY, "bob"),
    "jupyter-a-b.service": (IDLE, "a-b"),
    "jupyter-Ana.service": (BUSY, "Ana"),
    "system-jupyter\\x2dana.slice/jupyter-ana@example.com.service": (IDLE, "ana@example.com"),
    "jupyter-\\xc3\\x9cn\\xc3\\xafcode.service": (IDLE, ""),
}
UNITS: Said = {
    **{(user, ""): float(cores == BUSY) for cores, user in _UNITS.values() if user},
    ("Ünïcode", ""): None,
    ("eva", ""): None,
}


def units(history: History) -> None:
    """Units in cAdvisor."""
    machine = {"job": "cadvisor", "instance": "tljh:8080", "cpu": "total"}
    history.counter(_CPU, {**machine, "id": "/system.slice"}, BUSY)
    for unit, (cores, _) in _UNITS.items():
        history.counter(_CPU, {**machine, "id": f"/system.slice/{unit}"}, cores)
    eva = {**machine, "id": "/system.slice/jupyter-eva.service"}
    history.counter(_CPU, eva, IDLE, until=DEAD)


# ---- process-exporter ---------------------------------------------------------------------------


def processes(
    history: History,
    group: str,
    cores: float = IDLE,
    *,
    count: int = 3,
    until: int = 0,
    instance: str = "tljh:9256",
) -> None:
    """A group of processes; one whose processes have ended stays, with `count` 0."""
    labels = {"job": "process", "instance": instance, "groupname": group}
    for mode, share in (("user", 0.8), ("system", 0.2)):
        name = "namedprocess_namegroup_cpu_seconds_total"
        history.counter(name, {**labels, "mode": mode}, cores * share, until=until)
    history.gauge("namedprocess_namegroup_num_procs", labels, count, until=until)


def ended(history: History, group: str) -> None:
    """A group whose work ended six minutes ago."""
    labels = {"job": "process", "instance": "tljh:9256", "groupname": group}
    name, start, end = "namedprocess_namegroup_cpu_seconds_total", -LENGTH, -360
    history.counter(name, {**labels, "mode": "user"}, BUSY, since=start, until=end)
    history.gauge(name, {**labels, "mode": "user"}, 1 + BUSY * (end - start), since=end + STEP)
    history.gauge("namedprocess_namegroup_num_procs", labels, 3)


def process_units(history: History) -> None:
    """`{{.Cgroups}}`: one path on cgroup v2, a path for each controller on v1."""
    for unit, (cores, user) in _UNITS.items():
        path = f"/system.slice/{unit}"
        processes(history, f"[{path} / / {path}]" if user == "bob" else f"[{path}]", cores)
    processes(history, "[/system.slice/jupyter-cat.service]", 0, count=0)
    processes(history, "[/system.slice/jupyter-eva.service]", until=DEAD)


PROCESS_UNITS: Said = {**UNITS, ("cat", ""): None}


def accounts(history: History) -> None:
    """`{{.Username}}`."""
    processes(history, "ana")
    processes(history, "bob", BUSY)
    processes(history, "Ana")
    processes(history, "cat", 0, count=0)
    processes(history, "dan")  # idle on this machine, and at work on the other
    processes(history, "dan", BUSY, instance="other:9256")
    processes(history, "eva", until=DEAD)
    ended(history, "fay")


ACCOUNTS: Said = {
    ("ana", ""): 0, ("bob", ""): 1, ("Ana", ""): 0, ("cat", ""): None, ("dan", ""): 1,
    ("eva", ""): None, ("fay", ""): 0,
}  # fmt: skip


def arguments(history: History) -> None:
    """`{{.Matches.user}}/{{.Matches.server}}`."""
    processes(history, "ana@example.com/")
    processes(history, "Ünïcode/", BUSY)
    processes(history, "a-b/gpu box", BUSY)
    processes(history, "a-b/")
    processes(history, "cat/", 0, count=0)
    processes(history, "eva/", until=DEAD)


ARGUMENTS: Said = {
    ("ana@example.com", ""): 0, ("Ünïcode", ""): 1, ("a-b", ""): 0, ("a-b", "gpu box"): 1,
    ("cat", ""): None, ("eva", ""): None,
}  # fmt: skip

# ---- jupyter-resource-usage ---------------------------------------------------------------------


def resource_usage(history: History) -> None:
    """Servers that a scrape job has given labels; cat's does not track its CPU."""
    for user, server, percent, most, until in (
        ("ana@example.com", "", 0.4, 200, 0),
        ("Ünïcode", "", 98, 200, 0),
        ("a-b", "", 0, 200, 0),
        ("a-b", "gpu box", 55, 200, 0),
        ("cat", "", 0, 0, 0),
        ("eva", "", 0, 200, DEAD),
    ):
        labels = {"job": "jupyter-servers", "instance": f"{user}:8888"}
        labels |= {"user": user, "server": server}
        history.gauge("total_cpu_usage", labels, percent, until=until)
        history.gauge("max_cpu_usage", labels, most, until=until)
