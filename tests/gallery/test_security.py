"""Who may ask the gallery for what. Each attack that facts of browsers make possible is one test."""

import re
import shutil
import sqlite3
import struct
import zlib
from contextlib import closing
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from evofool.gallery.security import POLICY, REPORT_POLICY, Tokens
from evofool.pages.html_page import Section, html_page
from tests.gallery.server import PORT, client


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}", "localhost", "", f"[::1]:{PORT}"]
)
def test_a_host_that_is_not_this_server_is_refused(gallery: TestClient, host: str) -> None:
    """A name that was rebound to this machine, or another port, with the right cookie."""
    answer = gallery.get("/", headers={"host": host})
    assert answer.status_code == 421
    assert "digits" not in answer.text


def test_both_names_of_this_machine_are_accepted(root: Path, tokens: Tokens) -> None:
    with client(root, tokens, welcome=False) as found:
        host = {"host": f"localhost:{PORT}", "cookie": f"evofool-gallery-{PORT}={tokens.start}"}
        assert found.get("/", headers=host).status_code == 200


def test_without_the_start_token_nothing_is_shown(root: Path, tokens: Tokens) -> None:
    """Other users of the machine reach its loopback address, too."""
    with client(root, tokens, welcome=False) as found:
        for path in ("/", "/gallery.css", "/static/gallery.js", "/run/x", "/favicon.ico"):
            assert found.get(path).status_code == 403, path
        for wrong in ("x", "", tokens.start[:-1], tokens.form):
            assert found.get("/", params={"token": wrong}).status_code == 403
            assert found.get("/", headers={"cookie": f"evofool-gallery-{PORT}={wrong}"}).status_code == 403


def test_the_start_token_becomes_a_cookie_that_no_script_reads(root: Path, tokens: Tokens) -> None:
    with client(root, tokens, welcome=False) as found:
        answer = found.get("/", params={"token": tokens.start, "text": "a"}, follow_redirects=False)
        assert answer.status_code == 303
        assert answer.headers["location"] == "/?text=a"
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert f"evofool-gallery-{PORT}=" in cookie


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", f"http://127.0.0.1:{PORT + 1}", f"https://127.0.0.1:{PORT}"]
)
def test_a_change_from_another_origin_is_refused(gallery: TestClient, tokens: Tokens, origin: str | None) -> None:
    """A form on another port of this machine brings the strict cookie along."""
    headers = {"x-form-token": tokens.form} | ({"origin": origin} if origin else {})
    assert gallery.post("/", headers=headers).status_code == 403


@pytest.mark.parametrize("token", [None, "x", "start"])
def test_a_change_without_the_token_of_the_forms_is_refused(gallery: TestClient, tokens: Tokens, token: str | None) -> None:
    headers = {"origin": f"http://127.0.0.1:{PORT}"}
    if token:
        headers["x-form-token"] = tokens.start if token == "start" else token
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert gallery.request(method, "/", headers=headers).status_code == 403


def test_a_change_with_both_reaches_the_pages(gallery: TestClient, tokens: Tokens) -> None:
    headers = {"origin": f"http://127.0.0.1:{PORT}", "x-form-token": tokens.form}
    assert gallery.post("/", headers=headers).status_code == 405


def test_every_answer_has_the_policy_and_is_not_kept(gallery: TestClient) -> None:
    for path in ("/", "/static/gallery.js", "/no-such-page", "/gallery.css"):
        headers = gallery.get(path).headers
        assert headers["content-security-policy"] == POLICY, path
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert gallery.get("/").headers["cache-control"] == "no-store"
    assert "unsafe" not in POLICY


@pytest.mark.parametrize(
    "path",
    [
        "../digits/run.db",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e/digits/run.db",
        "/etc/passwd",
        "....//",
        "%2e%2e/secret.html",
        "..%2fsecret.html",
        "a/../../secret.html",
        "x" * 300 + ".html",
        "%00",
        "run.db",
        "..\\x.png",
    ],
)
@pytest.mark.parametrize("kind", ["explanation", "bench", "run"])
def test_no_path_leads_out_of_a_folder(root: Path, gallery: TestClient, kind: str, path: str) -> None:
    folder = root / "why"
    folder.mkdir(exist_ok=True)
    (folder / "index.html").write_text(html_page("Why", [Section("")]), encoding="utf-8")
    (root / "secret.html").write_text("secret", encoding="utf-8")
    bench = root / "bench"
    bench.mkdir(exist_ok=True)
    for name in ("report.html", "summary.json"):
        (bench / name).write_text("a report", encoding="utf-8")
    link = folder / "out.html"
    if not link.is_symlink():
        link.symlink_to(root / "secret.html")
    found = [line for line in gallery.get("/").text.split('"') if line.startswith(f"/{kind}/") and "?" not in line]
    assert found
    for base in [*found, f"/{kind}/x/"]:
        answer = gallery.get(f"{base.rstrip('/')}/{path}")
        assert answer.status_code in (400, 404), answer.url
        assert "SQLite" not in answer.text
        assert "secret" not in answer.text.replace("secret.html", "")
    if kind == "explanation":
        assert gallery.get(f"{found[0]}out.html").status_code == 404, "a link out of the folder is not followed"
        page = gallery.get(found[0])
        assert page.status_code == 200
        assert page.headers["content-security-policy"] == REPORT_POLICY
        assert "allow-scripts" not in REPORT_POLICY


def test_links_to_folders_are_not_followed(root: Path, tmp_path: Path, tokens: Tokens) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "linked").symlink_to(root / "digits")
    with client(tmp_path / "inside", tokens) as found:
        assert "/run/" not in found.get("/").text


def test_the_cookies_of_other_programs_do_not_matter(root: Path, tokens: Tokens) -> None:
    """Cookies are shared by all ports of a machine."""
    with client(root, tokens, welcome=False) as found:
        cookie = f'prefs={{"a": 1, "b"}}; =; evofool-gallery-{PORT}={tokens.start}; other="'
        assert found.get("/", headers={"cookie": cookie}).status_code == 200


def test_a_forged_picture_in_a_run_is_an_error_in_words(root: Path, tmp_path: Path, tokens: Tokens) -> None:
    """A small file of 4 gigapixels in the place of an elite's PNG."""
    head = struct.pack(">IIBBBBB", 65535, 65535, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + head
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    shutil.copytree(root / "digits", tmp_path / "digits")
    with closing(sqlite3.connect(tmp_path / "digits" / "run.db")) as db, db:
        db.execute("UPDATE elites SET png = ?", (bomb,))
    with client(tmp_path, tokens) as found:
        run = re.findall(r"/run/[0-9a-z]+", found.get("/").text)[0]
        name = re.findall(r"elite/([0-9a-f-]+)\.png", found.get(run).text)[0]
        answer = found.get(f"{run}/elite/{name}.png?side=112")
        assert answer.status_code in (400, 404)
        assert "65,535" in answer.text
