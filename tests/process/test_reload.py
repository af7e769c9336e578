"""A reload takes up whatever has changed, in the same process, and loses nothing."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
from pathlib import Path

import trustme

from tests.support.command import djasgi
from tests.support.process import until
from tests.support.server import (
    Server,
    answer,
    copy_project,
    refused,
    reserved,
    send,
    tcp,
)


def test_everything_that_has_changed_takes_effect(
    server: str, live: Path, tmp_path: Path
) -> None:
    """Code, dependency, settings, environment file, options, port and middleware."""
    library = tmp_path / "library"
    library.mkdir()
    (library / "dependency.py").write_text("NUMBER = 1")
    (live / "live" / "version.py").write_text("from dependency import NUMBER")
    (live / "variables").write_text("VARIABLE=old\n")
    options = live / "pyproject.toml"
    with reserved() as old, reserved() as new:
        table = f'[tool.djasgi]\nserver = "{server}"\nenv-file = "variables"\n'
        options.write_text(f"{table}port = {old}\n")
        variables = {"PYTHONPATH": str(library)}
        with Server(live, address=(), env=variables) as process:
            assert process.ready().port == old
            before = process.seen()
            assert (before["version"], before["greeting"]) == (1, "hello")
            assert before["variable"] == "old"
            with tcp(old) as kept:
                send(kept, "/")
                assert answer(kept)[0].status == 200

                (library / "dependency.py").write_text("NUMBER = 22")
                with (live / "live" / "settings.py").open("a") as settings:
                    settings.write('GREETING = "good day"\n')
                (live / "variables").write_text("VARIABLE=new\n")
                options.write_text(
                    f'{table}port = {new}\nworkers = 2\nheader = ["X-New: yes"]\n'
                )
                result = djasgi("reload", cwd=live)
                assert (result.returncode, result.stderr) == (0, "")
                assert result.stdout.startswith("reloaded in ")

                with tcp(new) as sock:
                    send(sock, "/")
                    response, text = answer(sock)
                assert response.headers["X-New"] == "yes"
                for word in ('"version": 22', "good day", '"variable": "new"'):
                    assert word in text
                # A client of the old port that was just idle is not cut off.
                send(kept, "/")
                response, text = answer(kept)
                assert '"version": 1' in text
                assert response.headers["Connection"].lower() == "close"
            until(lambda: refused(old), "nobody listens on the old port")
            status = process.status()
            assert status["pid"] == process.pid
            assert status["addresses"] == [f"http://127.0.0.1:{new}"]
            assert status["generation"] == 2
            assert status["last_reload"]["ok"]
            process.wait_for(rf"listening on http://127\.0\.0\.1:{new}$")
            until(lambda: len(process.workers()) == 2, "the old worker is gone")
            assert process.stop() == 0


def test_a_new_release_behind_the_link_takes_effect(
    server: str, tmp_path: Path
) -> None:
    """As a deployment does it; the certificate is a new one as well."""
    links, authorities = tmp_path / "current", []
    for number in (1, 2):
        release = copy_project("live", tmp_path / f"r{number}")
        (release / "live" / "version.py").write_text(f"NUMBER = {number}")
        authority = trustme.CA()
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
            release / "chain.pem"
        )
        authorities.append(authority)
    links.symlink_to(tmp_path / "r1" / "live")

    def version(port: int, authority: trustme.CA) -> str:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        with context.wrap_socket(tcp(port), server_hostname="localhost") as sock:
            send(sock, "/")
            return answer(sock)[1]

    arguments = ("--server", server, "--ssl-certfile", "chain.pem")
    with Server(links, *arguments, env={"PWD": str(links)}) as process:
        port = process.ready().port
        assert '"version": 1' in version(port, authorities[0])
        links.unlink()
        links.symlink_to(tmp_path / "r2" / "live")
        process.reload()
        until(lambda: len(process.workers()) == 1, "the old worker is gone")
        assert '"version": 2' in version(port, authorities[1])
        shutil.rmtree(tmp_path / "r1")
        (tmp_path / "r2" / "live" / "live" / "version.py").write_text("NUMBER = 33")
        process.reload(count=2)
        until(lambda: len(process.workers()) == 1, "the old worker is gone")
        assert '"version": 33' in version(port, authorities[1])
        assert process.stop() == 0


def test_reloads_during_a_reload_become_one(server: str, live: Path) -> None:
    with Server(live, "--server", server) as process:
        process.ready()
        for _ in range(5):
            process.signal(signal.SIGHUP)
            until(lambda: process.status()["state"] == "reloading", "it reloads")
        process.wait_for(r"reloaded in \d", count=2)
        until(lambda: len(process.workers()) == 1, "the old workers are gone")
        status = process.status()
        assert (status["state"], status["generation"]) == ("serving", 3)
        assert status["last_reload"]["number"] == 2
        assert process.stop() == 0
    assert len(process.matches(r"reloaded in \d")) == 2


def test_signals_during_the_hand_over_are_kept(live: Path) -> None:
    """Whatever moment they come at: none is lost, and none ends the process."""
    signals = (signal.SIGUSR1, signal.SIGTTIN, signal.SIGCHLD, signal.SIGHUP)
    with Server(live) as process:
        process.ready()
        # From here on over both of its selves, as fast as it takes them.
        process.signal(signal.SIGHUP)
        while not process.matches(r"reloaded in \d"):
            for number in signals[:1]:
                process.signal(number)
            os.sched_yield()
        process.signal(signal.SIGTTIN)
        process.wait_for("2 workers")
        assert process.popen.poll() is None
        assert process.stop() == 0


def test_a_stop_in_the_middle_of_a_reload_stops_everything(
    server: str, live: Path
) -> None:
    """The new code hangs, the old one has a request in flight, which is answered."""
    with Server(live, "--server", server) as process:
        process.ready()
        (live / "live" / "version.py").write_text(
            "import threading\nprint('hanging', flush=True)\nthreading.Event().wait()"
        )
        with process.connect() as sock:
            send(sock, "/slow/500/")
            process.signal(signal.SIGHUP)
            process.wait_for("^hanging")
            assert process.stop() == 0
            assert answer(sock)[0].status == 200
    assert len(process.matches("lifespan.shutdown")) == 1


def test_a_stop_while_the_new_plan_is_tried(live: Path) -> None:
    """There are a supervisor, its workers and a process that only tries."""
    with Server(live) as process:
        process.ready()
        process.signal(signal.SIGHUP)
        until(lambda: process.status()["state"] == "reloading", "it reloads")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
        assert not process.matches("reloaded|failed")
