"""The command line: drop-in for the idle culler, and mistakes that end in one line and exit 2."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import in_process
import pytest
from conftest import RunCommand
from exporter_process import Exporter, environment
from fake_hub import FakeHub

from hub_idle_exporter import __version__, cli
from hub_idle_exporter.demo.launch import free_ports

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def main(tmp_path: Path) -> Run:
    """Run a command in an empty directory; give the exit code and what it said."""

    def run(*arguments: str, **environ: str) -> tuple[int, str]:
        done = in_process.run(arguments, tmp_path, variables=environ)
        return done.code, done.out + done.err

    return run


def assert_one_line(said: tuple[int, str], *words: str) -> None:
    """See that it ended with exit 2 and one line that holds these words."""
    code, text = said
    assert code == 2, text
    assert text.count("\n") == 1, text
    assert text.startswith("hub-idle-exporter: ")
    assert text.endswith("\n")
    for word in words:
        assert word in text


DURATION = "seconds (3600) or a duration such as 90m, 1h30m, 2d"
BAD: list[tuple[str, list[str], str]] = [
    ("timeout", ["", "soon", "-1", "0", "0.5", "1h30", "nan", "inf", "1e99", "5 min"], DURATION),
    ("interval", ["0", "0.9", "-60", "x"], DURATION),
    ("max-age", ["-1", "x"], DURATION),
    ("grace", ["-1", "x"], DURATION),
    ("max-busy", ["0", "x"], DURATION),
    ("max-unanswered", ["-1", "x", "1w"], DURATION),
    ("request-timeout", ["0", "x"], DURATION),
    ("concurrency", ["0", "-1", "1.5", "ten", "1001", "9" * 30, "٣"], "from 1 to 1000"),
    ("max-culls", ["-1", "x", "1e3"], "from 0"),
    ("api-page-size", ["-1", "x", "10001"], "from 0"),
    ("user-timeout", ["1h", "0", "86399"], "at least 86400 s"),
    ("cull-users", ["maybe"], "true or false"),
    ("enforce", ["", "maybe", "2"], "true or false"),
    ("cull-named-servers", ["sometimes"], "true or false"),
    ("per-server-metrics", ["y"], "true or false"),
    ("busy-check", ["", "on", "AUTO"], "require, auto, off"),
    ("log-level", ["", "loud", "INFO"], "debug, info, warning, error"),
    ("log-format", ["xml"], "logfmt, json"),
    ("probe-user", ["", "  ", "a\nb"], "name of a Hub user"),
    (
        "url",
        ["", "hub", "ftp://h/", "http://", "http://h:99999/", "http://h/?x=1", "http://h/#x",
         "http://a..b/", "http://h o/", "http://h\n/", "http://:80/"],
        "http(s)://HOST[:PORT]/PATH",
    ),
    ("web.listen-address", ["", "9899", "h", "h:", "h:x", "h:-1", "h:99999"], "HOST:PORT or :PORT"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("option", "value", "allowed"), [(o, value, a) for o, values, a in BAD for value in values]
)
def test_a_bad_value_is_named_with_what_is_allowed(
    main: Run, option: str, value: str, allowed: str
) -> None:
    shown = repr(value)
    assert_one_line(main(f"--{option}={value}"), f"'--{option}'", shown, allowed)
    if value:
        variable = "HUB_IDLE_EXPORTER_" + option.upper().replace("-", "_").replace(".", "_")
        words = f"'--{option}'", f"(from ${variable})", shown, allowed
        assert_one_line(main("check", **{variable: value}), *words)


def test_a_bad_address_from_the_hub_is_named(main: Run) -> None:
    assert_one_line(main(JUPYTERHUB_API_URL="hub"), "'--url'", "$JUPYTERHUB_API_URL", "'hub'")


def test_a_password_in_an_address_is_refused_unseen(main: Run) -> None:
    said = main("--url=http://someone:s3cret@hub.example/hub/api")
    assert_one_line(said, "'--url'", "without user")
    assert "s3cret" not in said[1]


def test_a_value_that_is_long_is_cut(main: Run) -> None:
    said = main(f"--timeout={'9' * 5000}")
    assert_one_line(said, "'--timeout'")
    assert len(said[1]) < 500


@pytest.mark.parametrize(
    "arguments",
    [
        ["--api-token=s3cret"], ["--token=s3cret"], ["--timeot=5"], ["--timeout"], ["-x"],
        ["bogus"], ["check", "servers"], ["--json"], ["check", "--json"], ["check", "--once"],
        ["servers", "--once"], ["--watch"], ["check", "--watch"], ["servers", "--watch", "--json"],
        ["--watch=yes", "servers"], ["--fo\no"], ["--enforce", "false"], ["--no-enforce=true"],
        ["--once=yes"], ["\udcff"], ["--\udcff"],
    ],
)  # fmt: skip
def test_what_is_unknown_ends_in_one_line(main: Run, arguments: list[str]) -> None:
    said = main(*arguments)
    assert_one_line(said)
    assert "s3cret" not in said[1]


# ---- files --------------------------------------------------------------------------------------


def test_files_that_cannot_be_used_are_named(main: Run, tmp_path: Path) -> None:
    token = {"JUPYTERHUB_API_TOKEN": "x"}
    for bad in (tmp_path / "nowhere", tmp_path):
        assert_one_line(main(f"--api-token-file={bad}", **token), "--api-token-file", f"{bad}")
        assert_one_line(main(f"--ca-file={bad}", **token), "--ca-file", f"{bad}")
        assert_one_line(
            main("--ssl-enabled", f"--internal-certs-location={bad}", **token),
            "--ssl-enabled", "--internal-certs-location", f"{bad}",
        )  # fmt: skip


def test_certificates_that_are_none_are_named(main: Run, tmp_path: Path) -> None:
    (tmp_path / "hub-internal").mkdir()
    for name in ("hub-internal/hub-internal.crt", "hub-internal/hub-internal.key",
                 "hub-ca_trust.crt"):  # fmt: skip
        (tmp_path / name).write_text("no certificate")
    arguments = ("--ssl-enabled", f"--internal-certs-location={tmp_path}", "--enforce")
    for command in ((), ("--once",), ("check",)):
        said = main(*command, *arguments, JUPYTERHUB_API_TOKEN="x")
        assert_one_line(said, "--internal-certs-location", f"{tmp_path}")


def test_an_authority_that_is_none_is_named(main: Run, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    arguments = (f"--ca-file={file}", "--url=https://127.0.0.1:1/hub/api", "--once")
    assert_one_line(main(*arguments, JUPYTERHUB_API_TOKEN="x"), "--ca-file", f"{file}")


def settled(file: Path) -> Path:
    """Let a file be as it is for long: one that was just written is tried for 5 s."""
    os.utime(file, (0, 0))
    return file


@pytest.mark.parametrize(
    ("make", "said"),
    [(Path.mkdir, "Is a directory"), (os.mkfifo, "not a regular file"),
     (lambda file: file.write_bytes(bytes(10_000_000)), "larger than 1 MiB"),
     (lambda file: file.write_bytes(b"policies: \xff"), "UTF-8"),
     (lambda file: file.write_text("policies: !!int ''"), "'!!int'"),
     (lambda file: file.write_text("policies: [{name: \"\\ud800\", match: {users: a}}]"), "ud800")],
)  # fmt: skip
def test_whatever_is_wrong_with_a_policy_file_is_one_line(
    main: Run, tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    file = tmp_path / "policies.yaml"
    make(file)
    done = main("check", f"--policy-file={settled(file)}", JUPYTERHUB_API_TOKEN="x")
    assert_one_line(done, f"policy file {file}", said)


def test_a_device_without_end_is_no_policy_file(main: Run) -> None:
    done = main("check", "--policy-file=/dev/zero", JUPYTERHUB_API_TOKEN="x")
    assert_one_line(done, "policy file /dev/zero is not a regular file")


def test_a_broken_policy_file_is_one_line(main: Run, tmp_path: Path) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text("policies:\n  - name: gpu\n    match: {users: [a]}\n    timeot: 5\n")
    settled(file)
    for command in ([], ["check"], ["servers"], ["--once"]):
        said = main(*command, f"--policy-file={file}", JUPYTERHUB_API_TOKEN="x")
        assert_one_line(said, f"{file}", "'gpu'", "timeot")


@pytest.mark.parametrize("command", [[], ["check"], ["servers"], ["--once"]])
def test_no_token_is_one_line(main: Run, command: list[str]) -> None:
    assert_one_line(main(*command), "JUPYTERHUB_API_TOKEN", "--api-token-file")


# ---- what is left of jupyterhub-idle-culler; its options: test_drop_in.py ----------------------


@pytest.mark.parametrize("command", [[], ["check"], ["servers"], ["--once"]])
def test_the_idle_cullers_configuration_file_is_not_passed_over(
    main: Run, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "idle_culler_config.py").touch()
    said = main(*command, JUPYTERHUB_API_TOKEN="x")
    assert_one_line(said, "idle_culler_config.py", "--policy-file")


def test_options_that_are_refused_are_refused_from_the_environment_too(main: Run) -> None:
    said = main(HUB_IDLE_EXPORTER_CONFIG="culler.py")
    assert_one_line(said, "--config", "$HUB_IDLE_EXPORTER_CONFIG", "--policy-file")


# ---- commands -----------------------------------------------------------------------------------


def test_version_and_help(main: Run) -> None:
    assert main("--version") == (0, f"hub-idle-exporter, version {__version__}\n")
    code, text = main("--help")
    assert code == 0
    for parameter in cli.cli.params:
        named = parameter.param_type_name == "option" and not getattr(parameter, "hidden", False)
        assert not named or parameter.opts[0] in text
    assert "--generate-config" not in text


def test_the_module_is_the_console_script(run_command: RunCommand) -> None:
    script = Path(sys.executable).with_name("hub-idle-exporter")
    for arguments in (["--help"], ["--timeout=x"]):
        module = run_command(None, *arguments)
        done = subprocess.run([script, *arguments], capture_output=True, text=True, check=False)
        assert (module.returncode, module.stdout, module.stderr) == (
            done.returncode, done.stdout, done.stderr,
        )  # fmt: skip


def test_a_terminal_that_cannot_show_a_name_gets_it_escaped(
    fake_hub: FakeHub, tmp_path: Path
) -> None:
    fake_hub.add_server("日本 ünï", idle=999_999)
    speaking = environment(fake_hub.url, fake_hub.token, {"PYTHONIOENCODING": "latin-1"})
    for command in (["servers"], ["check"]):
        line = [sys.executable, "-m", "hub_idle_exporter", *command]
        done = subprocess.run(line, cwd=tmp_path, env=speaking, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr


def test_a_single_run_with_a_page_inside_the_hub_does_not_end() -> None:
    """The Hub would end with it; the log, the page and the open port say what is wrong."""
    (port,) = free_ports(1)
    service = {
        "JUPYTERHUB_SERVICE_NAME": "idle-exporter",
        "JUPYTERHUB_SERVICE_PREFIX": "/services/idle-exporter/",
        "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}",
    }
    with Exporter("http://127.0.0.1:9/hub/api", "a-token", ["--once"], service) as exporter:
        said = exporter.wait_event("start_failed")["error"]
        assert "--once" in said
        assert "service with a url" in said
        assert exporter.stop() == 0


def test_a_reader_that_leaves_early_is_no_traceback(fake_hub: FakeHub, tmp_path: Path) -> None:
    fake_hub.add_servers(3000)
    given = {"JUPYTERHUB_API_URL": fake_hub.url, "JUPYTERHUB_API_TOKEN": fake_hub.token}
    with subprocess.Popen(
        [sys.executable, "-m", "hub_idle_exporter", "servers"], cwd=tmp_path,
        env=os.environ | given, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
        process.wait(20)
